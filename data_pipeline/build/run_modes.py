"""Runs a build in one of two ways: asking the language model as it goes, or in batches through the Batch API."""

import threading

from etils import epath

from coi_jax.common.errors import UserError
from coi_jax.common.storage import as_path
from coi_jax.common.wording import count_of
from coi_jax.llm.batch_api import Batches
from coi_jax.llm.budget import Budget, BudgetReached, Prices
from coi_jax.llm.reply_store import open_store
from data_pipeline.build import llm_stages
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.engine.stage_runner import UNANSWERED, Incomplete, StageRunner, read_rows
from data_pipeline.build.pipeline import Build, BuildResult, Payment


def run_directly(build: Build, budget: float | None) -> BuildResult:
    """Run a build that asks as it goes.

    Raises:
      UserError: questions are left without an answer, or the budget (US dollars; None: no limit) is reached.
    """
    try:
        return build.run()
    except Incomplete as stop:
        raise _unanswered_error(stop, budget) from None


def run_in_batches(
    config: BuildConfig, runner: StageRunner, payment: Payment, found: Decisions, poll_seconds: float
) -> BuildResult:
    """Run a build through the Batch API: stages are made from the store, and what it lacks is asked in batches.

    Args:
      config: of the build.
      runner: runs the stages.
      payment: where spending is recorded, and its limit.
      found: the decisions of people on chains.
      poll_seconds: the pause between polls of a batch.

    Raises:
      UserError: the budget is reached, or the endpoint answers none of a batch's calls.
    """
    if not 0 <= poll_seconds <= threading.TIMEOUT_MAX:
        raise UserError("poll", poll_seconds, "must be a number of seconds, as 60")
    declined: dict[str, str] = {}
    while True:
        try:
            return Build(config, runner, payment, found, offline=True, declined=declined).run()
        except Incomplete as stop:
            declined |= _ask_in_batch(config, stop, payment, as_path(runner.folder).parent / "batches", poll_seconds)


def _ask_in_batch(
    config: BuildConfig, stop: Incomplete, payment: Payment, folder: epath.Path, poll_seconds: float
) -> dict[str, str]:
    """Ask the questions of a stage and of those beside it; return why the endpoint declined some, by their keys."""
    endpoint = llm_stages.endpoint_of(stop.stage, config)
    share = endpoint.batch_price_share
    budget = Budget(
        payment.folder, payment.dollars, Prices(endpoint.prompt_price * share, endpoint.completion_price * share), 1
    )
    batches = Batches(endpoint, endpoint.key(), folder / stop.stage, open_store(config.store), budget)
    folders = (stop.folder, *stop.others)
    calls = (row["call"] for place in folders for row in read_rows(f"{place}/{UNANSWERED}-*.jsonl"))
    try:
        answered = batches.answer(calls, poll_seconds)
    except BudgetReached:
        raise _unanswered_error(Incomplete(stop.stage, stop.folder, {"budget": 1}), payment.dollars) from None
    if not answered and not batches.declined:
        reasons = dict(batches.failures) or {"the batch has no result for it": 1}
        raise _unanswered_error(Incomplete(stop.stage, stop.folder, reasons), payment.dollars)
    return batches.declined


def _unanswered_error(stop: Incomplete, budget: float | None) -> UserError:
    """Return the error for a stage with questions that have no answer."""
    if stop.out_of_budget:
        hint = f"reached at stage {stop.stage}; what was answered is kept: raise it and run the same command again"
        return UserError("budget", budget, hint)
    (reason, count), *_ = sorted(stop.reasons.items(), key=lambda item: -item[1])
    number = sum(stop.reasons.values())
    return UserError(
        f"stage {stop.stage}",
        f"{count_of(number, 'question')} without an answer",
        f"{count} of them: {reason}; what was answered is kept: run the same command again",
    )
