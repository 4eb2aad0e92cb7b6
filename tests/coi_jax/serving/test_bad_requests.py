"""Requests that cannot be answered: an error in OpenAI's form, and the server goes on."""

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from coi_jax.serving import guard, server
from tests.helpers.servers import LIMITS, Server, running_server
from tests.helpers.trained_runs import make_run

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "Sort."}]
SETTINGS: dict[str, Any] = {"evaluation.decoding": "greedy", "evaluation.max_new_tokens": 400}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = make_run(tmp_path_factory.mktemp("made")).path
    return path


@pytest.fixture(scope="module")
def running(run: Path) -> Iterator[Server]:
    limits = dataclasses.replace(LIMITS, slots=1, waiting=2)
    with running_server(run, limits=limits, **SETTINGS) as made:
        yield made


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "said"),
    [
        (CHAT, {"messages": USER, "model": "gpt-4"}, 404, "model", "one of run"),
        (CHAT, {"messages": USER, "modle": "run"}, 400, "modle", "no such field"),
        (CHAT, {"messages": USER, "a\nb": 1}, 400, "a", "a b: no such field"),
        (CHAT, {"messages": []}, 400, "messages", "user's"),
        (CHAT, {"messages": [*USER, {"role": "assistant", "content": "A"}]}, 400, "messages", "user's"),
        (CHAT, {"messages": [*USER, *USER]}, 400, "messages", "follow one another"),
        (CHAT, {"messages": [{"role": "robot", "content": "A"}]}, 400, "messages.0.role", "should be"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0.content", "text"),
        (CHAT, {"messages": USER, "temperature": -1}, 400, "temperature", "greater than"),
        (CHAT, {"messages": USER, "temperature": "hot"}, 400, "temperature", "number"),
        (CHAT, {"messages": USER, "top_p": 0}, 400, "top_p", "greater than 0"),
        (CHAT, {"messages": USER, "seed": -1}, 400, "seed", "greater than"),
        (CHAT, {"messages": USER, "n": 4}, 400, "n", "ask in parts"),
        (CHAT, {"messages": USER, "n": 1000}, 400, "n", "less than"),
        (CHAT, {"messages": USER, "max_tokens": 0}, 400, "max_tokens", "greater than 0"),
        (CHAT, {"messages": USER, "max_tokens": 401}, 400, "max_tokens", "at most 400"),
        (CHAT, {"messages": USER, "stop": ["a"] * 5}, 400, "stop", "at most 4"),
        (CHAT, {"messages": USER, "top_logprobs": 6}, 400, "top_logprobs", "less than"),
        (CHAT, {"messages": USER, "tools": [{"type": "function"}]}, 400, "tools", "not computed"),
        (
            CHAT,
            {"messages": USER, "response_format": {"type": "json_object"}},
            400,
            "response_format",
            "check the form",
        ),
        (CHAT, {"messages": USER, "coi": {"instructions": ["A"]}}, 400, "coi", "leave messages empty"),
        (CHAT, {"coi": {"instructions": []}}, 400, "coi.instructions", "at least 1"),
        (CHAT, {"coi": {"instructions": ["A", " "]}}, 400, "coi", "a step is empty"),
        (CHAT, {"coi": {"instructions": ["A"], "outputs": ["B"]}}, 400, "coi", "fewer"),
        (CHAT, {"coi": {"instructions": ["A", "B"], "outputs": ["w" * 500]}}, 400, "coi.outputs", "shorter"),
        (CHAT, {"messages": [{"role": "user", "content": "w " * 500}]}, 400, "messages", "reads at most"),
        (TEXT, {"prompt": "w " * 500}, 400, "prompt", "reads at most"),
        (TEXT, {"prompt": "", "logprobs": 1}, 400, "prompt", "has no token"),
        (TEXT, {"prompt": ["a", ""]}, 400, "prompt", "has no token"),
        (TEXT, {}, 400, "prompt", "required"),
        (TEXT, {"prompt": [[1, 2]]}, 400, "prompt", "string"),
        (TEXT, {"prompt": "a", "best_of": 3}, 400, "best_of", "not computed"),
    ],
)
def test_a_bad_request_names_its_field(
    running: Server, path: str, body: dict[str, Any], status: int, param: str, said: str
) -> None:
    reply = running.post(path, json=body)
    error = reply.json()["error"]
    assert reply.status_code == status, error
    assert error["param"].startswith(param), error
    assert said in error["message"], error
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b'{"temperature": NaN}', "NaN is not JSON"),
        (b'{"seed": 1' + b"0" * 5000 + b"}", "digits"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b'{"prompt": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "nested"),
        (b'{"prompt": "a", "prompt": "b"}', "twice"),
    ],
)
def test_a_body_that_is_no_json_is_said(running: Server, data: bytes, said: str) -> None:
    reply = running.post(TEXT, content=data, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]


def test_other_routes_methods_and_types_are_errors_too(running: Server) -> None:
    assert running.get("/v2/nothing").json()["error"]["type"] == "invalid_request_error"
    assert running.get(CHAT).status_code == 405
    assert running.post(CHAT, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


def test_another_sites_name_is_refused(running: Server) -> None:
    """A page of another site whose name was made to lead to this machine cannot ask."""
    for host in ("attacker.example:80", "localhost.attacker.example", "[::1", "127.0.0.1@attacker.example", ""):
        assert running.get("/v1/models", headers={"Host": host}).status_code in (400, 421), host
    for host in ("localhost:80", "LOCALHOST", "127.0.0.1"):
        assert running.get("/v1/models", headers={"Host": host}).status_code == 200, host


def test_a_body_of_100_mb_is_refused(running: Server) -> None:
    """Whether its length is said beforehand or not."""
    headers = {"Content-Type": "application/json"}
    big = b"x" * 2**20

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield big

    with contextlib.suppress(OSError, Exception):  # the server may close before all is sent
        assert running.post(TEXT, content=parts(), headers=headers).status_code == 413
    with socket.create_connection(address(running)) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: 104857600\r\n\r\n")
        assert b" 413 " in connection.recv(1000)
    assert running.get("/health").status_code == 200


def test_slow_and_half_closed_connections_end(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    begun = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(address(running), timeout=10) as silent:
        silent.sendall(begun)
        assert silent.recv(1000) == b""  # closed
    with socket.create_connection(address(running), timeout=10) as slow:
        slow.sendall(begun + b"Content-Length: 20\r\n\r\n{")
        assert b" 408 " in slow.recv(1000)
    with socket.create_connection(address(running), timeout=10) as half:
        half.sendall(begun + b"Content-Length: 20\r\n\r\n{")
        half.shutdown(socket.SHUT_WR)
        half.recv(1000)
    assert running.get("/health").status_code == 200


@pytest.mark.parametrize("kind", ["", "Content-Type: application/json\r\n"])
def test_what_is_no_http_is_answered_and_leaves_no_traceback(
    running: Server, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(address(running), timeout=10) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{kind}Transfer-Encoding: chunked\r\n\r\nzz\r\n"
        connection.sendall(head.encode())
        connection.recv(1000)
    with socket.create_connection(address(running), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        assert b" 400 " in connection.recv(1000)
    assert running.get("/health").status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def address(running: Server) -> tuple[str, int]:
    host, _, port = running.url.removeprefix("http://").partition(":")
    return host, int(port)


def wait_until(happens: Any) -> None:
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def long_answer(running: Server, *, stream: bool) -> socket.socket:
    """A connection on which a long answer has begun."""
    body = json.dumps({"prompt": "ab", "max_tokens": 400, "stream": stream}).encode()
    connection = socket.create_connection(address(running))
    head = f"POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(f"{head}\r\n\r\n".encode() + body)
    wait_until(lambda: busy(running) == 1)
    return connection


def busy(running: Server) -> int:
    return next(iter(running.service.served.values())).scheduler.busy


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_its_slot(running: Server, stream: bool) -> None:
    tokens = running.service.served["run"].scheduler
    connection = long_answer(running, stream=stream)
    before = tokens.steps_taken
    connection.close()
    wait_until(lambda: busy(running) == 0)
    assert tokens.steps_taken - before < 390  # it did not write to the end


def test_a_full_queue_says_when_to_ask_again(running: Server) -> None:
    client = running.client()
    taken = threading.Thread(target=lambda: client.completions.create(model="run", prompt="ab", n=3, max_tokens=400))
    taken.start()
    wait_until(lambda: running.service.served["run"].scheduler.waiting == 2)
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(model="run", prompt="ab", max_tokens=1)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    taken.join()
    assert client.completions.create(model="run", prompt="ab", max_tokens=1).choices


def test_a_request_may_take_so_long(run: Path) -> None:
    limits = dataclasses.replace(LIMITS, slots=1, seconds=0.05)
    with running_server(run, limits=limits, **SETTINGS) as running:
        with pytest.raises(openai.APIStatusError) as caught:
            running.client().completions.create(model="run", prompt="ab", max_tokens=400)
        assert caught.value.status_code == 504
        wait_until(lambda: busy(running) == 0)


def test_a_key_is_asked_for_where_there_is_one(run: Path) -> None:
    with running_server(run, key="secret", **SETTINGS) as running:
        for wrong in ("other", "secret2", ""):
            with pytest.raises(openai.AuthenticationError):
                running.client(api_key=wrong or "none").models.list()
        assert running.client(api_key="secret").models.list().data
        assert running.get("/metrics").status_code == 401
        assert running.get("/health").status_code == running.get("/ready").status_code == 200


def test_a_failure_of_the_engine_is_told_and_got_over(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from coi_jax.inference import engine

    def fail(*_: Any) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "decode", fail)
        with pytest.raises(openai.InternalServerError, match="the engine failed"):
            running.client().completions.create(model="run", prompt="ab", max_tokens=2)
    assert running.client().completions.create(model="run", prompt="ab", max_tokens=2).choices


def test_what_happened_is_counted(running: Server) -> None:
    assert running.client().completions.create(model="run", prompt="ab", max_tokens=2).choices
    told = running.get("/metrics").text
    assert 'coi_requests_total{path="/v1/completions",status="200"}' in told
    assert 'coi_busy_slots{model="run"} 0.0' in told
    assert 'coi_reused_prompt_tokens{model="run"}' in told
    assert "coi_first_token_seconds_count" in told
