import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.llm.batch_api import Batches, _parts
from coi_jax.llm.batch_lines import Failure, Line, read_line, split_lines
from coi_jax.llm.budget import Budget, BudgetReached, Prices
from coi_jax.llm.calls import Reply
from coi_jax.llm.endpoint import MOST_BYTES
from coi_jax.llm.failures import Declined
from coi_jax.llm.reply_store import SqliteStore
from tests.helpers.fake_batch_api import BatchDesk
from tests.helpers.llm_clients import KEY, PRICES, Output, call, config
from tests.helpers.llm_server import Running, rates, running
from tests.helpers.scripted_server import GOOD, USAGE, Response, Served, completion, refusal, serving

BODIES = [call(str(n)).body for n in range(40)]
HALF = Prices(PRICES.prompt / 2, PRICES.completion / 2)


@contextlib.contextmanager
def batches(
    server: Running | Served, folder: Path, dollars: float | None = None
) -> Iterator[tuple[Batches, SqliteStore]]:
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


def one_refused(request: dict[str, Any], _: int) -> Response:
    return refusal(400, "too long") if request["messages"][1]["content"] == "3" else completion(GOOD)


@pytest.mark.parametrize("error_file", [False, True])
def test_a_refused_call_keeps_the_others_from_nothing_and_a_later_run_asks_it_again(
    tmp_path: Path, error_file: bool
) -> None:
    refused = files.digest(BODIES[3])
    with serving(one_refused, error_file=error_file) as server:
        for _ in range(2):  # the second time as another run
            with batches(server, tmp_path) as (made, store):
                made.answer(BODIES, 0.01)
            assert list(made.declined) == [refused]
            assert "too long" in made.declined[refused]
            assert sorted([*store, refused]) == sorted(map(files.digest, BODIES))
        assert len(server.requests) == len(BODIES) + 1
    spent = Budget(str(tmp_path / "spent"), None, HALF, 1).total()
    assert spent == pytest.approx(39 * HALF.of_tokens(*USAGE.values()))


def test_separators_of_lines_within_a_text_end_no_line(tmp_path: Path) -> None:
    text = GOOD.replace("x", "a\u2028b\u2029c\u0085d\u000be")
    with serving(lambda *_: completion(text), escaped=False) as server, batches(server, tmp_path) as (made, store):
        assert made.answer(BODIES[:3], 0.01) == 3
        reply = store.get(files.digest(BODIES[0]))
    assert reply
    assert reply.text == text


@pytest.mark.parametrize("status", ["answered", None])
def test_a_status_that_the_batch_api_does_not_have_ends_the_wait(
    tmp_path: Path, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = json.dumps({"id": "batch-0", "object": "batch", "created_at": 0, "status": status}).encode()
    monkeypatch.setattr(BatchDesk, "_look", lambda *_: batch)
    said = pytest.raises(UserError, match=rf"gives a batch the status {status!r}, which the Batch API does not have")
    with serving(lambda *_: completion(GOOD)) as server, batches(server, tmp_path) as (made, _), said:
        made.answer(BODIES[:1], 0.01)


def test_an_endpoint_without_batches_is_named_and_nothing_is_spent(tmp_path: Path) -> None:
    said = pytest.raises(UserError, match=r"no Batch API: status 404 \(.*nothing here\); leave out --batch")
    with (
        serving(lambda *_: completion(GOOD), has_batches=False) as server,
        batches(server, tmp_path) as (made, _),
        said,
    ):
        made.answer(BODIES, 0.01)
    del made
    assert Budget(str(tmp_path / "spent"), None, HALF, 1).total() == 0.0


def test_what_answers_no_batch_api_is_named(tmp_path: Path) -> None:
    with batches(Served("http://127.0.0.1:9"), tmp_path) as (made, _):
        made._client = made._client.with_options(max_retries=0)
    with pytest.raises(UserError, match="connection failed"):
        made.answer(BODIES, 0.01)


def test_a_batch_counts_with_what_it_may_cost_until_it_is_collected(tmp_path: Path) -> None:
    calls = {files.digest(body): body for body in BODIES}
    most = sum(map(HALF.bound, BODIES))
    with serving(lambda *_: completion(GOOD)) as server:
        with batches(server, tmp_path) as (made, _):
            made.submit(calls)
        del made  # as where its process was killed
        assert Budget(str(tmp_path / "spent"), None, HALF, 1).total() == pytest.approx(most)
        with batches(server, tmp_path) as (made, _):
            assert made.answer(BODIES, 0.01) == len(BODIES)
        assert len(server.requests) == len(BODIES)
    spent = Budget(str(tmp_path / "spent"), None, HALF, 1).total()
    assert spent == pytest.approx(40 * HALF.of_tokens(*USAGE.values()))


def test_a_batch_is_asked_in_a_weaker_format_where_the_endpoint_knows_no_schemas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "Output", "schema": Output.model_json_schema()}}
    asked = [call(str(n), response_format=schema).body for n in range(3)]

    def answer(request: dict[str, Any], _: int) -> Response:
        named = request["response_format"]["type"]
        return completion(GOOD) if named == "json_object" else refusal(400, f"response_format {named} is unknown")

    with serving(answer) as server, batches(server, tmp_path) as (made, store):
        assert made.answer(asked, 0.01) == 3
        assert sorted(store) == sorted(map(files.digest, asked))  # as they were asked for
        assert not made.declined
    assert capsys.readouterr().err.count("note: the endpoint takes no response_format json_schema") == 1


@pytest.mark.parametrize("line", ['{"id": "b"}', '{"id": [], "calls": "", "number": 1, "collected": false}', "{"])
def test_a_damaged_list_of_jobs_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "jobs.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"batch jobs: .*jobs\.jsonl"), batches(Served("http://127.0.0.1:9"), tmp_path):
        pass


KEYS = ["0" * 64, "../../etc/passwd"]


def result(body: Any) -> dict[str, Any]:
    """A result with status 200."""
    return {"custom_id": KEYS[0], "response": {"status_code": 200, "body": body}}


@pytest.mark.parametrize(
    ("row", "key", "kind"),
    [
        (
            {"custom_id": KEYS[0], "response": {"status_code": 500, "body": {"error": {"message": "m"}}}},
            KEYS[0],
            Failure,
        ),
        ({"custom_id": KEYS[0], "response": None, "error": {"message": "expired"}}, KEYS[0], Failure),
        ({"custom_id": KEYS[0], "response": {"status_code": 400, "body": "no"}}, KEYS[0], Declined),
        (result({"choices": [{"message": {"content": "x"}}]}), KEYS[0], Reply),
        (result({"choices": [{"message": {"content": 3}}]}), KEYS[0], Reply),
        (result({"choices": []}), KEYS[0], Failure),
        (result({"error": {"message": "too long", "code": 400}}), KEYS[0], Declined),
        (result({"error": {"message": "slow down", "code": 429}}), KEYS[0], Failure),
        ({"custom_id": KEYS[1], "response": {"status_code": 200, "body": {}}}, "", Failure),
        ({"custom_id": 3}, "", Failure),
        ([], "", Failure),
    ],
)
def test_lines_of_results_are_told_apart(row: Any, key: str, kind: type) -> None:
    line = read_line(json.dumps(row).encode() + b"\n")
    assert line.key == key
    assert isinstance(line.outcome, kind)


def test_a_completion_in_a_line_that_cannot_be_read_is_kept_as_it_is_paid_for() -> None:
    start = json.dumps({"custom_id": KEYS[0]})[:-1].encode()
    line = read_line(start + b', "response": {"choices": ' + b"9" * 5000 + b"}}\n")
    assert line.key == KEYS[0]
    assert isinstance(line.outcome, Reply)
    assert line.outcome.fault
    for rest in (b', "response": ' + b"9" * 5000 + b"}\n", b', "resp', b', "response": {"choices": '):
        line = read_line(start + rest)  # no completion, or the file was cut: it is asked for again
        assert line == Line(KEYS[0], Failure("an unreadable result", lost=True))


def test_a_body_in_a_batch_that_is_no_completion_counts_and_is_asked_for_again(tmp_path: Path) -> None:
    is_mended: list[bool] = []
    most = sum(map(HALF.bound, BODIES[:3]))
    with serving(lambda *_: completion(GOOD) if is_mended else Response(200, b"{}")) as server:
        with batches(server, tmp_path) as (made, store):
            assert made.answer(BODIES[:3], 0.01) == 0
            assert not list(store)
            ((reason, count),) = made.failures.items()
            assert count == 3
            assert reason.startswith("not a chat completion")
        assert Budget(str(tmp_path / "spent"), None, HALF, 1).total() == pytest.approx(most)
        is_mended.append(True)
        with batches(server, tmp_path) as (made, store):
            assert made.answer(BODIES[:3], 0.01) == 3
    spent = Budget(str(tmp_path / "spent"), None, HALF, 1).total()
    assert spent == pytest.approx(most + 3 * HALF.of_tokens(*USAGE.values()))


def test_lines_come_whole_from_any_chunks() -> None:
    data = b"first\nsecond\xe2\x80\xa8\n\nlast"
    for size in (1, 3, 100):
        chunks = [data[start : start + size] for start in range(0, len(data), size)]
        assert list(split_lines(chunks)) == [b"first\n", b"second\xe2\x80\xa8\n", b"\n", b"last"]
    (line, rest) = split_lines([b"x" * MOST_BYTES, b"y" * MOST_BYTES, b"z\nrest"])
    assert line == b"x" * MOST_BYTES + b"\n"
    assert rest == b"rest"


def test_an_endpoint_that_is_down_is_asked_as_long_as_patience_lasts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, budget = SqliteStore(tmp_path / "replies.sqlite"), Budget(str(tmp_path / "spent"), None, HALF, 1)
    started = time.monotonic()
    with serving(lambda *_: completion(GOOD), has_batches=False, otherwise=500) as server:
        made = Batches(config(server.url, patience_seconds=1.0), KEY, tmp_path / "jobs", store, budget)
        with pytest.raises(UserError, match="nothing here"):
            made.answer(BODIES, 0.01)
    assert time.monotonic() - started < 5  # ten attempts would take 45 s
    said = capsys.readouterr().err
    assert (
        said.count("note: the endpoint answers with status 500; it is asked again, at most 1 time within 0.5 s (end")
        == 1
    )


def test_an_endpoint_that_cannot_be_reached_is_said_to_be_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, budget = SqliteStore(tmp_path / "replies.sqlite"), Budget(str(tmp_path / "spent"), None, HALF, 1)
    made = Batches(config("http://127.0.0.1:9/v1", patience_seconds=2.0), KEY, tmp_path / "jobs", store, budget)
    with pytest.raises(UserError, match="connection failed"):
        made.answer(BODIES, 0.01)
    said = capsys.readouterr().err
    assert said.startswith("note: the endpoint cannot be reached: connection failed (ConnectError: ")
    assert "it is asked again, at most 2 times within 1.5 s (endpoint.attempts = 10, patience_seconds = 2)" in said
    assert said.count("note: ") == 1
