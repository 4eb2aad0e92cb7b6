import json
import math
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coi_jax.common.errors import UserError
from coi_jax.llm import Answered, Unanswered, ask
from coi_jax.llm.budget import LEASES, Budget, BudgetReached
from coi_jax.llm.calls import Reply
from coi_jax.llm.spending_journal import open_journal
from coi_jax.llm.structured import BUDGET
from tests.helpers.file_limits import largest_file
from tests.helpers.llm_clients import PRICES, Output, call, client
from tests.helpers.llm_server import running

BODY = call("a question of some length").body


def spend(folder: str, dollars: float, results: "multiprocessing.Queue[float]") -> None:
    """Pays calls that cost all that they may, until the budget is reached."""
    budget, spent = Budget(folder, dollars, PRICES, 4), 0.0
    try:
        while True:
            bound = budget.reserve(BODY)
            budget.settle(bound, bound)
            spent += bound
    except BudgetReached:
        budget.close()
    results.put(spent)


def test_workers_of_one_budget_never_exceed_it_together(tmp_path: Path) -> None:
    dollars = PRICES.bound(BODY) * 500
    context = multiprocessing.get_context("forkserver")
    results: multiprocessing.Queue[float] = context.Queue()
    workers = [context.Process(target=spend, args=(str(tmp_path), dollars, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    spent = sum(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert 0.8 * dollars < spent <= dollars * (1 + 1e-9)
    assert Budget(str(tmp_path), dollars, PRICES, 1).total() == pytest.approx(spent)


@given(st.text(), st.integers(1, 1000), st.integers(0, 1000))
def test_a_call_costs_no_more_than_its_bound(text: str, tokens: int, used: int) -> None:
    body = call(text).body | {"max_tokens": tokens}
    size = len(json.dumps(body["messages"], ensure_ascii=False).encode())  # a token is a byte at least
    assert PRICES.of(Reply("", "stop", "", size, min(used, tokens))) <= PRICES.bound(body)


@given(st.permutations(range(40)))
def test_what_is_returned_whole_leaves_nothing_spent(order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        budget = Budget(folder, None, PRICES, 4)
        bounds = [budget.reserve(call("x" * (7 * number)).body) for number in range(40)]
        for number in order:
            budget.settle(bounds[number], 0.0)
        budget.close()
        assert budget.total() == 0.0


def pay_and_hang(folder: str, paid: Connection) -> None:
    """Pays a call, makes another one, and is killed before its reply comes."""
    budget = Budget(folder, 100.0, PRICES, 4)
    budget.settle(budget.reserve(BODY), 1e-5)
    paid.send(budget.reserve(BODY))
    time.sleep(60)


def test_of_killed_workers_the_paid_calls_count_and_those_in_flight(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    for number in range(1, 4):
        received, sent = context.Pipe(duplex=False)
        worker = context.Process(target=pay_and_hang, args=(str(tmp_path), sent), daemon=True)
        worker.start()
        assert received.poll(20)
        bound = received.recv()
        assert Budget(str(tmp_path), None, PRICES, 1).total() >= 100 / LEASES  # it lives, and may spend its lease
        worker.kill()
        worker.join()
        assert Budget(str(tmp_path), None, PRICES, 1).total() == pytest.approx(number * (1e-5 + bound))
    assert not list(tmp_path.glob("*.journal"))


def test_a_worker_that_ends_in_order_is_settled_to_the_same(tmp_path: Path) -> None:
    budget = Budget(str(tmp_path), 1.0, PRICES, 4)
    budget.settle(budget.reserve(BODY), 1e-5)
    budget.close()
    del budget
    assert Budget(str(tmp_path), None, PRICES, 1).total() == pytest.approx(1e-5)
    assert not list(tmp_path.glob("*.journal"))


def test_work_that_outlives_its_worker_counts_until_it_is_corrected(tmp_path: Path) -> None:
    budget = Budget(str(tmp_path), 1.0, PRICES, 1)
    budget.record("batch", 2e-5)
    del budget
    other = Budget(str(tmp_path), 1.0, PRICES, 1)
    assert other.total() == pytest.approx(2e-5)
    other.record("batch", 2e-6)
    assert other.total() == pytest.approx(2e-6)


@pytest.mark.parametrize("dollars", [math.nan, math.inf, -1.0])
def test_a_budget_is_a_number_of_dollars(tmp_path: Path, dollars: float) -> None:
    with pytest.raises(UserError, match="budget"):
        Budget(str(tmp_path), dollars, PRICES, 1)


@pytest.mark.parametrize("data", ["", "{", "[]", '{"dollars": NaN}', '{"dollars": "1"}', '{"dollars": null}'])
def test_a_damaged_record_of_spending_is_named(tmp_path: Path, data: str) -> None:
    (tmp_path / "a.json").write_text(data)
    with pytest.raises(UserError, match=r"a\.json.*damaged"):
        Budget(str(tmp_path), 1.0, PRICES, 1).reserve(BODY)


def test_a_changed_record_of_spending_is_named(tmp_path: Path) -> None:
    Budget(str(tmp_path), 1.0, PRICES, 1).record("batch", 2.5)
    path = tmp_path / "batch.json"
    path.write_text(path.read_text(encoding="utf-8").replace("2.5", "0.5"), encoding="utf-8")
    with pytest.raises(
        UserError, match=r'batch\.json: was changed since it was written; write \{"dollars": X\} into it'
    ):
        Budget(str(tmp_path), 1.0, PRICES, 1).total()
    path.write_text('{"dollars": 1.5}', encoding="utf-8")
    assert Budget(str(tmp_path), 1.0, PRICES, 1).total() == 1.5


def test_what_was_not_spent_goes_back(tmp_path: Path) -> None:
    budget = Budget(str(tmp_path), 1.0, PRICES, 4)
    budget.settle(budget.reserve(BODY), 1e-5)
    budget.close()
    assert budget.total() == pytest.approx(1e-5)


def test_a_budget_stops_and_can_be_raised(tmp_path: Path) -> None:
    calls = [call(str(n)) for n in range(60)]
    with running() as server:
        for dollars in (0.0007, 0.001, None):
            with client(server.url, tmp_path, dollars=dollars) as made:
                found = [made.run(ask(made, one, Output)).result() for one in calls]
                made.run(made.reply(calls[0])).result()  # what is stored costs nothing
            spent = Budget(str(tmp_path / "spending"), None, PRICES, 1).total()
            answered = [one for one in found if isinstance(one, Answered)]
            if dollars:
                assert {one for one in found if not isinstance(one, Answered)} == {Unanswered(BUDGET)}
                assert 0 < len(answered) < len(calls)
                assert 0.2 * dollars < spent <= dollars
        assert len(answered) == len(calls)
        assert server.counts()["requests"] == len(calls)  # nothing was asked twice


def test_replies_that_were_lost_count_with_all_that_they_may_have_cost(tmp_path: Path) -> None:
    with running(rates={"drop": 1.0}) as server, client(server.url, tmp_path, attempts=3) as made:
        found = made.run(ask(made, call("a"), Output)).result()
        assert isinstance(found, Unanswered)
        assert "connection failed" in found.reason
    body = call("a").body
    assert Budget(str(tmp_path / "spending"), None, PRICES, 1).total() == pytest.approx(3 * PRICES.bound(body))


@pytest.mark.parametrize("room", [3, 4])  # for a part of a line, and for the first line alone
def test_a_disk_that_takes_no_whole_line_is_named(tmp_path: Path, room: int) -> None:
    path = tmp_path / "worker.journal"
    journal = open_journal(path)
    assert journal is not None
    with largest_file(room), pytest.raises(OSError, match=r"No space left|File too large") as told:
        list(map(journal.add, (1.5, 2.5)))
    assert told.value.filename == str(path)
