"""Builds chains from single instructions: a dataset folder, and beside it a work folder with the report.

The endpoint's key is read from the environment only: OPENAI_API_KEY, with COI_LLM_MODEL and OPENAI_BASE_URL where the
config leaves them open. Run the same command again to resume: no reply is ever paid for twice. Other flags are passed
to Beam, as --runner=DataflowRunner.

  python -m data_pipeline.build --out data/built   (computed chains; needs no endpoint)
  python -m data_pipeline.build --config configs/build/super_ni.py --source super_ni:DIR --out data/built --dry_run
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from coi_jax.chains.dataset import check_replaceable, read_manifest
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.storage import PathLike, as_path
from coi_jax.config import loading
from coi_jax.config.overrides import override
from coi_jax.config.validation import validate
from coi_jax.llm.batch_api import Batches
from coi_jax.llm.budget import Budget, BudgetReached, Prices
from coi_jax.llm.reply_store import open_store
from data_pipeline.build import decisions, forecast, instruction_sources, llm_stages
from data_pipeline.build.asking.questions import prompt_identity
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.engine.stage_runner import UNANSWERED, Incomplete, StageRunner, beam_flag_names, read_rows
from data_pipeline.build.pipeline import Build, BuildResult, Payment
from data_pipeline.build.review import chain_outcomes
from data_pipeline.build.review.build_report import write_report
from data_pipeline.build.writing import SOURCE, write
from data_pipeline.text_tables import text_table

RUNNER = "--runner=FnApiRunner"  # the DirectRunner's engine in this process; its other one would be downloaded


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments, beam_flags = _parser().parse_known_args(rest)
    if arguments.llm:
        overrides["llm"] = arguments.llm
    if arguments.source:
        overrides["seeds.sources"] = tuple(map(source, arguments.source))
    config = load(arguments.config, overrides)
    work = arguments.work or f"{arguments.out}.work"
    runner = StageRunner(f"{work}/stages", [RUNNER, *check_beam_flags(beam_flags)])
    found = decisions.read(arguments.decisions or f"{work}/decisions.jsonl")
    payment = Payment(f"{work}/spending", arguments.budget)
    if arguments.dry_run:
        return _forecast(Build(config, runner, payment, found, offline=True), json_wanted=arguments.json)
    check_replaceable(arguments.out, SOURCE)  # now, and not when all questions have been asked and paid
    if config.llm == "endpoint":
        config.endpoint.key()
    if arguments.batch and config.llm == "endpoint":
        built = _run_in_batches(config, runner, payment, found, arguments.poll)
    else:
        built = _run_directly(Build(config, runner, payment, found), arguments.budget)
    write(arguments.out, config, built, notes(config, built))
    chain_outcomes.write(work, built)
    spent = Budget(payment.folder, None, Prices(0.0, 0.0), 1).total()
    write_report(f"{work}/report.html", config, built, spent, found)
    print(summary(arguments.out, work, spent))
    return 0


def source(text: str) -> dict[str, str]:
    """Parse a source of single instructions from the command line's `KIND:PATH`."""
    kind, _, path = text.partition(":")
    path, _, split = path.rpartition(":") if kind == "dataset" else (path, "", "")
    return {"kind": kind, "path": path, "split": split}


FLAGS: dict[str, dict[str, Any]] = {
    "--config": {"default": "configs/build/procedural.py", "metavar": "FILE", "help": "see configs/build/"},
    "--out": {"required": True, "metavar": "DIR", "help": "dataset folder to write"},
    "--work": {"metavar": "DIR", "help": "folder of stages, spending and report, local or gs://…; None: OUT.work"},
    "--source": {
        "action": "append",
        "metavar": "KIND:PATH",
        "help": "instead of the config's: super_ni:DIR, alpaca:FILE, dataset:DIR:SPLIT, procedural:NAMES; repeatable",
    },
    "--llm": {"choices": ("endpoint", "procedural"), "help": "what answers questions; None: as the config says"},
    "--budget": {"type": float, "metavar": "USD", "help": "stop before all runs together cost more; None: no limit"},
    "--dry_run": {"action": "store_true", "help": "ask nothing; print the expected calls, tokens and cost"},
    "--json": {"action": "store_true", "help": "with --dry_run: print JSON"},
    "--batch": {"action": "store_true", "help": "ask through the Batch API: cheaper, but within a day"},
    "--poll": {"type": float, "default": 60.0, "metavar": "SECONDS", "help": "pause between polls of a batch"},
    "--decisions": {
        "metavar": "FILE",
        "help": "decisions of data_pipeline.curate; None: WORK/decisions.jsonl",
    },
}


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    for name, settings in FLAGS.items():
        parser.add_argument(name, **settings)
    return parser


def check_beam_flags(beam_flags: Sequence[str]) -> Sequence[str]:
    """Return the flags if Beam knows them all: a misspelt flag of this command must not start a build.

    Raises:
      UserError: one is not known; the nearest is given.
    """
    known = ["--help", *FLAGS, *beam_flag_names()]
    for flag in beam_flags:
        name = flag.partition("=")[0]
        if name.startswith("-") and name.replace("--no_", "--") not in known:
            raise UserError("flag", name, nearest(name, known))
    return beam_flags


def load(path: str, overrides: dict[str, Any]) -> BuildConfig:
    """Load the config of a file, with overrides and with the endpoints of the environment.

    Raises:
      UserError: a field is wrong, or no model is named.
    """
    values = loading.read(path)
    override(values, overrides, BuildConfig)
    config = validate(BuildConfig, values)
    if config.llm == "procedural":
        return config
    opinion = config.opinion
    if opinion.enabled:
        opinion = opinion.model_copy(update={"endpoint": opinion.endpoint.resolved()})
    return config.model_copy(update={"endpoint": config.endpoint.resolved(), "opinion": opinion})


def _run_directly(build: Build, budget: float | None) -> BuildResult:
    """Run a build that asks as it goes."""
    try:
        return build.run()
    except Incomplete as stop:
        raise _unanswered_error(stop, budget) from None


def _unanswered_error(stop: Incomplete, budget: float | None) -> UserError:
    """Return the error for a stage with questions that have no answer."""
    if stop.out_of_budget:
        hint = f"reached at stage {stop.stage}; what was answered is kept: raise it and run the same command again"
        return UserError("budget", budget, hint)
    (reason, count), *_ = sorted(stop.reasons.items(), key=lambda item: -item[1])
    number = sum(stop.reasons.values())
    return UserError(
        f"stage {stop.stage}",
        f"{number} questions without an answer",
        f"{count} of them: {reason}; what was answered is kept: run the same command again",
    )


def _run_in_batches(
    config: BuildConfig, runner: StageRunner, payment: Payment, found: decisions.Decisions, poll_seconds: float
) -> BuildResult:
    """Run a build through the Batch API: stages are made from the store, and what it lacks is asked in batches."""
    while True:
        try:
            return Build(config, runner, payment, found, offline=True).run()
        except Incomplete as stop:
            _ask_in_batch(config, stop, payment, as_path(runner.folder).parent / "batches", poll_seconds)


def _ask_in_batch(
    config: BuildConfig, stop: Incomplete, payment: Payment, folder: epath.Path, poll_seconds: float
) -> None:
    endpoint = llm_stages.endpoint_of(stop.stage, config)
    share = endpoint.batch_price_share
    budget = Budget(
        payment.folder, payment.dollars, Prices(endpoint.prompt_price * share, endpoint.completion_price * share), 1
    )
    batches = Batches(endpoint, endpoint.key(), folder / stop.stage, open_store(config.store), budget)
    calls = (row["call"] for row in read_rows(f"{stop.folder}/{UNANSWERED}-*.jsonl"))
    try:
        answered = batches.answer(calls, poll_seconds)
    except BudgetReached:
        raise _unanswered_error(Incomplete(stop.stage, stop.folder, {"budget": 1}), payment.dollars) from None
    if not answered:
        raise UserError("batch", stop.stage, "the endpoint answered none of its calls; see its own log of batches")


def _forecast(build: Build, *, json_wanted: bool) -> int:
    lines = forecast.Forecast(build.config, *build.run_without_asking()).lines()
    print(json.dumps([forecast.row(line) for line in lines], indent=2) if json_wanted else forecast.table(lines))
    return 0


def notes(config: BuildConfig, built: BuildResult) -> dict[str, Any]:
    """Return the manifest's notes on a build: everything that its chains depend on."""
    return {
        "licences": [seed["licence"] for seed in built.tasks.read()],
        "config": config.model_dump(mode="json", exclude={"store"}),
        "sources": [Path(path).name for source in config.seeds.sources for path in instruction_sources.paths(source)],
        "prompts": {prompt: prompt_identity(prompt) for prompt in llm_stages.prompts()},
        "stages": {stage.name: stage.counts for stage in built.every},
        "identity": files.digest([stage.identity for stage in built.every]),
    }


def summary(out: PathLike, work: str, spent: float) -> str:
    """Return a summary of a build, in a few lines.

    Args:
      out: the dataset folder.
      work: the work folder.
      spent: US dollars, of all runs.
    """
    manifest = read_manifest(out)
    counts = manifest["counts"].items()
    lines = text_table(
        ["split", "length", "chains"],
        [[split, length, count] for split, by_length in counts for length, count in by_length.items()],
    )
    lines.append(f"{sum(manifest['rejected'].values()):,} rows rejected, each with its reason in {out}/rejected.jsonl")
    lines.append(f"${spent:.4f} spent on it; the report: {work}/report.html")
    return "\n".join(lines)


def command() -> int:
    """Run the command `coi-build`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
