"""Endpoints that answer otherwise than the API's documentation has it: each completion is paid for once, and kept."""

import collections
import gzip
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from coi_jax.llm import Answered, Outcome, Rejected, Unanswered, ask
from coi_jax.llm.budget import Budget
from coi_jax.llm.calls import MOST_TOKENS, Reply
from coi_jax.llm.client import UNUSABLE_AT_FIRST
from coi_jax.llm.endpoint import MOST_BYTES, MOST_COMPRESSED_BYTES
from coi_jax.llm.failures import retry_after
from coi_jax.llm.reply_store import open_store
from coi_jax.llm.structured import QUOTED_CHARACTERS
from tests.helpers.llm_clients import PRICES, Output, call, client
from tests.helpers.scripted_server import GOOD, USAGE, Answer, Response, completion, refusal, serving

BODY = call("a").body


def put(answer: Answer, folder: Path, **changes: Any) -> tuple[Outcome[Output], list[dict[str, Any]]]:
    """What one question becomes, and the requests that it took; it is put again, and nothing else comes of it."""
    with serving(answer) as server:
        with client(server.url, folder, **changes) as made:
            found = made.run(ask(made, call("a"), Output)).result(timeout=20)
        asked = list(server.requests)
        if not isinstance(found, Unanswered) and not (isinstance(found, Rejected) and found.is_declined):
            with client(server.url, folder, **changes) as made:
                assert made.run(ask(made, call("a"), Output)).result(timeout=20) == found
            assert server.requests == asked
    return found, asked


def spent(folder: Path) -> float:
    return Budget(str(folder / "spending"), None, PRICES, 1).total()


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "thinking", "thinking": []}, {"type": "text", "text": GOOD}],
        [{"type": "text", "text": GOOD[:5]}, {"type": "text", "text": GOOD[5:]}],
        f"<think>\nFirst I look at {{it}}. {{}}\n</think>\n\n{GOOD}",
        f"It may be {{}}, or so.</think>{GOOD}",
        f"Here it is: {GOOD}. I hope it helps {{you}}!",
        f"```json {GOOD}```",
        f"```json\n{GOOD}\n```\nSo be it.",
        f"{GOOD}\n\n{GOOD}",
    ],
    ids=["parts", "parts of a text", "thoughts", "end of thoughts", "prose", "fence in a line", "fence", "twice"],
)
def test_the_object_of_a_reply_is_found_in_one_call(tmp_path: Path, content: Any) -> None:
    found, requests = put(lambda *_: completion(content), tmp_path)
    assert isinstance(found, Answered)
    assert found.value == Output(output="x")
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"output": "x"} or {"output": "y"}', "several different objects"),
        ('<think>It may be {"output": "x"}', "Invalid JSON"),
        ('{"output": "half a face \ud83d"}', "lone surrogate"),
        ('{"output": "half a face \\ud83d"}', "Invalid JSON"),
        ("{" * 100_000, "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        ('{"output": ' + "1" * 5000 + "}", "valid string|Invalid JSON"),
    ],
    ids=["two", "thoughts alone", "surrogate", "escaped surrogate", "braces", "brackets", "digits"],
)
def test_what_cannot_be_used_is_rejected_with_what_was_written_and_paid_for_once(
    tmp_path: Path, content: str, fault: str
) -> None:
    found, requests = put(lambda *_: completion(content), tmp_path)
    assert isinstance(found, Rejected)
    assert len(requests) == 2
    assert re.search(fault, found.reason)
    assert found.raw[0] == content.encode("utf-8", "backslashreplace").decode()
    json.dumps(found.raw, ensure_ascii=False).encode()
    assert spent(tmp_path) == pytest.approx(2 * PRICES.of_tokens(100, 20))


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": [{"message": {"content": 3}}]}',
        b'{"choices": [{"message": {"content": "x"}}], "n": ' + b"1" * 5000 + b"}",
        b'{"choices": [{"message": {"content": "\xff"}}]}',
    ],
    ids=["number", "digits", "bytes"],
)
def test_a_chat_completion_that_cannot_be_used_is_kept_as_it_is_and_not_asked_for_again(
    tmp_path: Path, body: bytes
) -> None:
    found, requests = put(lambda *_: Response(200, body), tmp_path)
    assert isinstance(found, Rejected)
    assert found.reason.startswith("unusable completion: ")
    assert found.raw == (body.decode("utf-8", "backslashreplace"),)
    assert len(requests) == 1
    assert spent(tmp_path) == pytest.approx(PRICES.bound(BODY))  # nobody knows what it cost


def test_a_reply_that_the_endpoint_holds_back_may_lack_its_message(tmp_path: Path) -> None:
    found, requests = put(lambda *_: Response(200, b'{"choices": [{"finish_reason": "content_filter"}]}'), tmp_path)
    assert isinstance(found, Rejected)
    assert found.reason == "refused"
    assert len(requests) == 1


NO_COMPLETIONS = {
    b"{}": "not a chat completion.*an empty object",
    b"[]": "not a chat completion.*an array",
    b"null": "not a chat completion.*null",
    b'"busy"': "not a chat completion.*a string",
    b'{"choices": []}': "not a chat completion.*the keys choices",
    b'{"choices": [{}]}': "not a chat completion.*the keys choices",
    b'{"choices": {"message": {"content": "x"}}}': "not a chat completion.*the keys choices",
    b'{"id": 1, "detail": "log in first"}': "not a chat completion.*the keys id, detail",
    b'{"error": "upstream is busy"}': "an error in place of a reply.*upstream is busy",
    b'{"n": ' + b"1" * 5000 + b"}": r"unreadable reply \(it holds a number that is too long\)",
    b"[" * 5000: r"unreadable reply \(it is nested too deep\)",
    b"{\xff}": "unreadable reply",
    b"<html>log in first</html>": "unreadable reply",
    b"": "unreadable reply",
}


def test_a_body_that_is_no_chat_completion_is_a_lost_reply_and_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coi_jax.llm.rate_limits.FIRST_PAUSE_SECONDS", 0.01)
    bodies, asked = list(NO_COMPLETIONS), collections.Counter[str]()
    calls = [call(str(number)) for number in range(len(bodies))]

    def answer(request: dict[str, Any], _: int) -> Response:
        content = request["messages"][1]["content"]
        asked[content] += 1
        return completion(GOOD) if asked[content] == 4 else Response(200, bodies[int(content)])

    with serving(answer) as server:
        with client(server.url, tmp_path, attempts=2) as made:
            found = [future.result(20) for future in [made.run(ask(made, one, Output)) for one in calls]]
        for outcome, reason in zip(found, NO_COMPLETIONS.values(), strict=True):
            assert isinstance(outcome, Unanswered)
            assert re.fullmatch(f"{reason}.*, after 2 attempts", outcome.reason), outcome
        lost = sum(2 * PRICES.bound(one.body) for one in calls)
        assert spent(tmp_path) == pytest.approx(lost)  # each may have been charged for
        with client(server.url, tmp_path, attempts=2) as made:  # the same command again
            found = [future.result(20) for future in [made.run(ask(made, one, Output)) for one in calls]]
    assert all(isinstance(outcome, Answered) for outcome in found)
    assert set(asked.values()) == {4}


def test_what_earlier_versions_kept_of_bodies_that_are_no_completions_is_asked_again(tmp_path: Path) -> None:
    kept = Reply("{}", "stop", "", 20, 1, "not a chat completion: it has no message in choices[0]", is_estimate=True)
    for path in (tmp_path / "r.sqlite", tmp_path / "folder"):
        store = open_store(str(path))
        store.put(call("a").key, kept)
        assert store.get(call("a").key) is None
    found, requests = put(lambda *_: completion(GOOD), tmp_path)
    assert isinstance(found, Answered)
    assert len(requests) == 1


def test_a_body_that_was_cut_on_its_way_is_asked_for_again(tmp_path: Path) -> None:
    found, requests = put(lambda _, n: completion(GOOD) if n else Response(200, b'{"choices": [{"mess'), tmp_path)
    assert isinstance(found, Answered)
    assert len(requests) == 2


def told(code: Any, message: str = "upstream is busy", **headers: str) -> Response:
    """A status 200 with an error in its body."""
    return Response(200, json.dumps({"error": {"message": message, "code": code}}).encode(), headers)


IN_CHOICE = {"choices": [{"error": {"message": "broke off", "code": 502}, "message": {"content": "Th"}}]}


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (told(502), r"status 502 \(upstream is busy\), after 2 attempts"),
        (told(None), r"an error in place of a reply \(upstream is busy\), after 2 attempts"),
        (Response(200, json.dumps(IN_CHOICE).encode()), r"status 502 \(broke off\), after 2 attempts"),
    ],
    ids=["status", "no status", "in a choice"],
)
def test_an_error_in_place_of_a_reply_is_asked_again(tmp_path: Path, response: Response, reason: str) -> None:
    found, requests = put(lambda *_: response, tmp_path, attempts=2)
    assert isinstance(found, Unanswered)
    assert re.fullmatch(reason, found.reason)
    assert len(requests) == 2
    assert spent(tmp_path) == pytest.approx(2 * PRICES.bound(BODY))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (401, "endpoint.key_variable.*the key is wrong"),
        ("402", "endpoint.key_variable.*no money left"),
        (404, "endpoint.model.*no such model"),
        ("insufficient_quota", "endpoint.key_variable.*upstream is busy"),
    ],
)
def test_an_error_in_a_body_that_no_repetition_mends_stops_at_once(tmp_path: Path, code: Any, reason: str) -> None:
    found, requests = put(lambda *_: told(code), tmp_path)
    assert isinstance(found, Unanswered)
    assert re.search(reason, found.reason)
    assert len(requests) == 1
    assert spent(tmp_path) == 0.0


def test_an_error_in_a_body_that_is_about_one_call_declines_it(tmp_path: Path) -> None:
    found, requests = put(lambda *_: told(400, "the prompt is too long"), tmp_path)
    assert isinstance(found, Rejected)
    assert found.is_declined
    assert len(requests) == 1
    assert spent(tmp_path) == 0.0


def test_an_error_in_a_body_may_ask_to_wait(tmp_path: Path) -> None:
    began = time.monotonic()
    busy = told("429", Retry_After="1")
    found, _ = put(lambda _, number: completion(GOOD) if number else busy, tmp_path)
    assert isinstance(found, Answered)
    assert time.monotonic() - began >= 1
    assert spent(tmp_path) == pytest.approx(PRICES.of_tokens(*USAGE.values()))  # a limit costs nothing


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": -100, "completion_tokens": -1},
        {"prompt_tokens": float("inf"), "completion_tokens": 1},
        {"prompt_tokens": float("nan"), "completion_tokens": 1},
        {"prompt_tokens": 100, "completion_tokens": MOST_TOKENS + 1},
        {"prompt_tokens": "100", "completion_tokens": True},
    ],
    ids=["absent", "list", "null", "negative", "infinite", "nan", "too many", "text"],
)
def test_a_reply_whose_tokens_are_not_counted_costs_all_that_it_may(tmp_path: Path, usage: Any) -> None:
    found, requests = put(lambda *_: completion(GOOD, usage), tmp_path)
    assert isinstance(found, Answered)
    assert len(requests) == 1
    assert found.usage.prompt_tokens == call("a").prompt_tokens  # in the report, an estimate
    assert spent(tmp_path) == pytest.approx(PRICES.bound(BODY))


def test_a_long_reply_is_quoted_on_a_page_when_it_is_to_be_repaired(tmp_path: Path) -> None:
    found, requests = put(lambda *_: completion("word " * 100_000), tmp_path)
    assert isinstance(found, Rejected)
    assert len(requests[1]["messages"][-2]["content"]) <= QUOTED_CHARACTERS + 2


@pytest.mark.parametrize("is_compressed", [False, True], ids=["plain", "compressed"])
def test_a_body_longer_than_any_reply_is_not_read_to_its_end(tmp_path: Path, is_compressed: bool) -> None:
    plain = Response(200, b"[" * (MOST_BYTES + 1))
    compressed = Response(200, gzip.compress(os.urandom(MOST_COMPRESSED_BYTES + 1)), {"Content_Encoding": "gzip"})
    found, requests = put(lambda *_: compressed if is_compressed else plain, tmp_path)
    assert isinstance(found, Rejected)
    assert "longer than" in found.reason
    assert len(requests) == 1
    assert len(found.raw[0]) < 20_000


def test_a_long_body_of_an_error_is_an_error(tmp_path: Path) -> None:
    found, _ = put(lambda *_: Response(500, b"x" * (MOST_BYTES + 1)), tmp_path, attempts=1)
    assert isinstance(found, Unanswered)
    assert "status 500" in found.reason


def test_a_body_that_drips_ends_with_the_time_for_a_reply(tmp_path: Path) -> None:
    began = time.monotonic()
    dripping = Response(200, completion(GOOD).body, drip=0.05)
    found, _ = put(lambda *_: dripping, tmp_path, attempts=1, timeout_seconds=0.3)
    assert isinstance(found, Unanswered)
    assert "no reply within 0.3 s" in found.reason
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("wait", ["86400", "inf", "Fri, 31 Dec 9999 23:59:59 GMT", "1e400"])
def test_no_more_is_waited_than_patience_lasts_and_it_is_said(
    tmp_path: Path, wait: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    found, _ = put(lambda *_: refusal(429, "come back later", Retry_After=wait), tmp_path, patience_seconds=0.5)
    assert isinstance(found, Unanswered)
    assert "come back later" in found.reason
    assert time.monotonic() - began < 5
    said = capsys.readouterr().err
    assert said.count("the endpoint asks to wait 86,400 s or more (status 429") == 1
    assert said.count("as endpoint.patience_seconds says") == 1


@pytest.mark.parametrize("wait", ["nan", "-5", "soon", "Fri, 99 Foo 99999", ""])
def test_a_wait_that_makes_no_sense_is_none(wait: str) -> None:
    assert retry_after({"retry-after": wait}) == 0.0


def test_parameters_are_sent_as_the_config_says() -> None:
    default = call("a").body
    assert default["max_tokens"] == 50
    assert default["temperature"] == 0.0
    one = call("a")
    other = type(one)(
        "m", one.messages, None, 50, None, "max_completion_tokens", {"reasoning_effort": "low", "seed": 1}
    )
    assert other.body == {
        "model": "m",
        "messages": default["messages"],
        "max_completion_tokens": 50,
        "reasoning_effort": "low",
        "seed": 1,
    }
    assert PRICES.bound(other.body) > 50 * PRICES.completion / 1e6


SCHEMA = {"type": "json_schema", "json_schema": {"name": "Output", "schema": Output.model_json_schema()}}


OF_SCHEMA = {"type": "json_object", "schema": Output.model_json_schema()}
LLAMA_CPP_PYTHON = (  # what its server says, with status 500
    "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': \"Input "
    "should be 'text' or 'json_object'\", 'input': 'json_schema', 'ctx': {'expected': \"'text' or 'json_object'\"}}\n\n"
    'File "/python3.11/site-packages/llama_cpp/server/app.py", line 376, in create_chat_completion\n    POST /v1'
)


def without(*formats: str) -> Answer:
    """An endpoint that knows some formats not."""

    def answer(request: dict[str, Any], _: int) -> Response:
        name = format_of(request)
        return refusal(400, f"response_format {name} is unknown") if name in formats else completion(GOOD)

    return answer


def llama_cpp_python(request: dict[str, Any], _: int) -> Response:
    return refusal(500, LLAMA_CPP_PYTHON) if format_of(request) == "json_schema" else completion(GOOD)


def format_of(request: dict[str, Any]) -> str:
    found = request.get("response_format", {})
    return f"{found.get('type', 'text')}{' with a schema' if 'schema' in found else ''}"


@pytest.mark.parametrize(
    ("answer", "declined", "sent_then"),
    [
        (without("json_schema"), 1, OF_SCHEMA),
        (llama_cpp_python, 1, OF_SCHEMA),
        (without("json_schema", "json_object with a schema"), 2, {"type": "json_object"}),
        (without("json_schema", "json_object with a schema", "json_object"), 3, None),
    ],
)
def test_an_endpoint_without_schemas_is_asked_for_less_from_then_on(
    tmp_path: Path, answer: Answer, declined: int, sent_then: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [call(str(n), response_format=SCHEMA) for n in range(3)]
    with serving(answer) as server, client(server.url, tmp_path) as made:
        for one in calls:
            assert isinstance(made.run(ask(made, one, Output)).result(timeout=20), Answered)
        sent = [request.get("response_format") for request in server.requests]
    assert sent[declined:] == [sent_then] * 3
    assert capsys.readouterr().err.count("note: the endpoint takes no response_format json_schema") == 1
    assert spent(tmp_path) == pytest.approx(3 * PRICES.of_tokens(*USAGE.values()))
    with client("http://127.0.0.1:1", tmp_path, offline=True) as made:  # what is stored, is so for the call as it was
        assert all(isinstance(made.run(ask(made, one, Output)).result(), Answered) for one in calls)


def test_a_call_that_is_declined_for_another_reason_keeps_the_format_of_all(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], _: int) -> Response:
        return refusal(400, "too long") if request["messages"][1]["content"] == "1" else completion(GOOD)

    with serving(answer) as server, client(server.url, tmp_path) as made:
        found = [made.run(ask(made, call(str(n), response_format=SCHEMA), Output)).result() for n in range(3)]
        assert [request["response_format"]["type"] for request in server.requests] == ["json_schema"] * 3
    assert [type(one) for one in found] == [Answered, Rejected, Answered]
    assert isinstance(found[1], Rejected)
    assert found[1].is_declined


def test_a_call_that_is_forbidden_while_others_are_answered_is_rejected_alone(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], _: int) -> Response:
        return refusal(403, "flagged") if request["messages"][1]["content"] == "1" else completion(GOOD)

    with serving(answer) as server, client(server.url, tmp_path) as made:
        found = [made.run(ask(made, call(str(n)), Output)).result() for n in range(3)]
    assert [type(one) for one in found] == [Answered, Rejected, Answered]


def test_an_endpoint_that_declines_all_is_not_asked_without_end(tmp_path: Path) -> None:
    with serving(lambda *_: refusal(400, "max_tokens is unknown to this model")) as server:
        with client(server.url, tmp_path) as made:
            futures = [made.run(ask(made, call(str(n)), Output)) for n in range(300)]
            found = [future.result(timeout=20) for future in futures]
        assert len(server.requests) < 200
    assert isinstance(found[-1], Unanswered)
    assert "max_tokens is unknown to this model" in found[-1].reason
    assert "token_limit_field to max_completion_tokens" in found[-1].reason
    assert spent(tmp_path) == 0.0


def test_a_model_whose_replies_cannot_be_used_is_not_paid_without_end(tmp_path: Path) -> None:
    calls = [call(str(n)) for n in range(200)]
    with serving(lambda *_: completion("Sure!")) as server:
        with client(server.url, tmp_path) as made:
            found = []
            for start in range(0, len(calls), 10):
                asking = [made.run(ask(made, one, Output)) for one in calls[start : start + 10]]
                found += [future.result(20) for future in asking]
        asked = len(server.requests)
        assert asked == 2 * UNUSABLE_AT_FIRST
        with client(server.url, tmp_path) as made:
            assert isinstance(made.run(ask(made, calls[0], Output)).result(20), Rejected)
        assert len(server.requests) == asked  # what was paid for is kept
    stopped = [one for one in found if isinstance(one, Unanswered)]
    assert "could be used, the last one was not of the wanted form: Invalid JSON" in stopped[0].reason


def test_a_reply_that_another_process_has_stored_meanwhile_is_not_asked_again(tmp_path: Path) -> None:
    other = client("http://127.0.0.1:1", tmp_path)

    def answer(_: dict[str, Any], number: int) -> Response:
        if number == 0:
            with other as made:
                made._store.put(call("a").key, stored)
        return refusal(500, "broken")

    with serving(lambda *_: completion(GOOD)) as server, client(server.url, tmp_path / "first") as made:
        stored = made.run(made.reply(call("a"))).result()
    found, requests = put(answer, tmp_path)
    assert isinstance(found, Answered)
    assert len(requests) == 1
