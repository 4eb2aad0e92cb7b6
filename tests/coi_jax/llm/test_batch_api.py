import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coi_jax.common import files
from coi_jax.llm.batch_api import Batches, _parts
from coi_jax.llm.budget import Budget, BudgetReached, Prices
from coi_jax.llm.reply_store import SqliteStore
from tests.helpers.llm_clients import KEY, PRICES, call, config
from tests.helpers.llm_server import Running, rates, running

BODIES = [call(str(n)).body for n in range(40)]
HALF = Prices(PRICES.prompt / 2, PRICES.completion / 2)


@contextlib.contextmanager
def batches(server: Running, folder: Path, dollars: float | None = None) -> Iterator[tuple[Batches, SqliteStore]]:
    store = SqliteStore(folder / "replies.sqlite")
    budget = Budget(str(folder / "spent"), dollars, HALF, 1)
    yield Batches(config(server.url), KEY, folder / "jobs", store, budget), store


def requests(server: Running) -> int:
    return server.counts().get("requests", 0)


def test_all_calls_are_answered_for_half_the_price(tmp_path: Path) -> None:
    with running() as server, batches(server, tmp_path) as (made, store):
        assert made.answer(BODIES, 0.01) == len(BODIES)
        replies = [store.get(files.digest(body)) for body in BODIES]
        assert made.answer(BODIES, 0.01) == 0
        assert requests(server) == len(BODIES)
    spent = Budget(str(tmp_path / "spent"), None, HALF, 1).total()
    assert spent == pytest.approx(sum(PRICES.of(reply) for reply in replies if reply) / 2)
    assert all(replies)


def test_what_failed_within_a_batch_goes_into_the_next(tmp_path: Path) -> None:
    with running(rates=rates(0.7)) as server, batches(server, tmp_path) as (made, store):
        came = [made.answer(BODIES, 0.01) for _ in range(8)]
    assert came[0] < len(BODIES)
    assert sum(came) == len(BODIES)
    assert came[-1] == 0
    assert all(store.get(files.digest(body)) for body in BODIES)


def test_a_run_that_was_stopped_goes_on_with_the_same_jobs(tmp_path: Path) -> None:
    calls = {files.digest(body): body for body in BODIES}
    with running() as server:
        with batches(server, tmp_path) as (made, _):
            job = made.submit(calls)
        with batches(server, tmp_path) as (made, store):
            assert made.submit(calls) == job  # it is written down
        (tmp_path / "jobs" / "jobs.jsonl").unlink()
        with batches(server, tmp_path) as (made, store):
            assert made.submit(calls) == job  # the endpoint has it, though it was not written down
            assert made.answer(BODIES, 0.01) == len(BODIES)
            assert all(store.get(key) for key in calls)
        assert requests(server) == len(BODIES)


def test_a_budget_lets_as_many_calls_pass_as_it_can_pay(tmp_path: Path) -> None:
    dollars = 1.2 * max(map(HALF.bound, BODIES))
    with running() as server:
        with batches(server, tmp_path, dollars) as (made, _):
            came = [made.answer(BODIES, 0.01)]
            assert came == [1]
            with pytest.raises(BudgetReached):  # what a bound leaves over pays for more, but not for all
                came.extend(made.answer(BODIES, 0.01) for _ in BODIES)
        assert 1 < sum(came) < len(BODIES)
        assert Budget(str(tmp_path / "spent"), None, HALF, 1).total() <= dollars
        with batches(server, tmp_path) as (made, store):
            made.answer(BODIES, 0.01)
            assert all(store.get(files.digest(body)) for body in BODIES)
        assert requests(server) == len(BODIES)


def test_files_hold_no_more_calls_and_bytes_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, dict[str, Any]] = {files.digest(body): body for body in BODIES}
    monkeypatch.setattr("coi_jax.llm.batch_api.MOST_CALLS", 7)
    assert [len(part) for part in _parts(calls)] == [7] * 5 + [5]
    monkeypatch.setattr("coi_jax.llm.batch_api.MOST_BYTES", 1)
    assert [len(part) for part in _parts(calls)] == [1] * 40
    assert [*_parts({})] == []
