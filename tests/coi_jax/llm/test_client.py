import asyncio
import contextlib
import json
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from coi_jax.llm import Answered, Call, Client, Rejected, Unanswered, ask
from coi_jax.llm.batch_api import _NotingClient
from coi_jax.llm.calls import Reply
from coi_jax.llm.client import NoReply, NotStored
from coi_jax.llm.endpoint import CLIENT_VARIABLES, Endpoint
from coi_jax.llm.reply_store import open_store
from tests.helpers import llm_clients
from tests.helpers.file_limits import largest_file
from tests.helpers.llm_clients import KEY, Output, call, client
from tests.helpers.llm_server import FAULTS, rates, running
from tests.helpers.scripted_server import refusal, serving


def ask_all(made: Client, calls: list[Call]) -> list[object]:
    futures = [made.run(ask(made, one, Output)) for one in calls]
    return [future.result() for future in futures]


def test_nothing_is_lost_and_every_reject_is_explained_where_30_percent_of_the_attempts_fail(tmp_path: Path) -> None:
    calls = [call(str(n)) for n in range(300)]
    with running(rates=rates(0.3), log=str(tmp_path / "log")) as server, client(server.url, tmp_path) as made:
        found = ask_all(made, calls)
        counts = server.counts()
    assert set(FAULTS) <= set(counts)  # all of them happened
    assert not [one for one in found if isinstance(one, Unanswered)]
    rejected = [one for one in found if isinstance(one, Rejected)]
    assert 0 < len(rejected) < 60
    assert all(one.reason and one.raw for one in rejected)
    assert len([one for one in found if isinstance(one, Answered)]) + len(rejected) == len(calls)
    repaired = [one for one in found if isinstance(one, Answered) and len(one.keys) == 2]
    assert repaired
    assert all(one.usage.calls == 2 for one in repaired)


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    calls = [call(str(n)) for n in range(50)]
    with running(rates=rates(0.3)) as server:
        with client(server.url, tmp_path) as made:
            first = ask_all(made, calls)
        before = server.counts()["requests"]
        with client(server.url, tmp_path) as made:
            assert ask_all(made, calls) == first
            assert made.counts["asked"] == 0
        assert server.counts()["requests"] == before
    with client("http://127.0.0.1:1", tmp_path, offline=True) as made:
        assert ask_all(made, calls) == first


def test_an_offline_client_says_what_it_would_ask(tmp_path: Path) -> None:
    with client("http://127.0.0.1:1", tmp_path, offline=True) as made:
        with pytest.raises(NotStored):
            made.run(made.reply(call("a"))).result()
        (found,) = ask_all(made, [call("a")])
    assert found == Unanswered("not stored", call("a").body)


def test_equal_calls_in_flight_are_one_call(tmp_path: Path) -> None:
    with running(delay=0.1) as server, client(server.url, tmp_path) as made:
        replies = ask_all(made, [call("a")] * 20)
        assert server.counts()["requests"] == 1
    assert len(set(map(str, replies))) == 1


def test_as_many_calls_are_in_flight_as_may_be(tmp_path: Path) -> None:
    with running(delay=0.05) as server, client(server.url, tmp_path, concurrency=24) as made:
        ask_all(made, [call(str(n)) for n in range(200)])
        assert server.counts()["most_at_once"] == 24


def test_requests_a_minute_are_kept(tmp_path: Path) -> None:
    with running() as server, client(server.url, tmp_path, requests_per_minute=600) as made:
        started = time.monotonic()
        ask_all(made, [call(str(n)) for n in range(25)])
        assert time.monotonic() - started > (25 - 10) / 10 - 0.2  # ten at once, then ten a second


def test_tokens_a_minute_are_kept_by_calls_that_need_more_than_a_second_allows(tmp_path: Path) -> None:
    with running() as server, client(server.url, tmp_path, tokens_per_minute=60 * 40) as made:
        started = time.monotonic()
        one = call("a")
        ask_all(made, [one, call("b"), call("c")])
        assert time.monotonic() - started > (3 * (one.prompt_tokens + one.max_tokens) - 40) / 40 - 1


def test_retry_after_is_honoured_by_all_calls(tmp_path: Path) -> None:
    with running(rates={"status429": 0.2}, retry_after="1") as server, client(server.url, tmp_path) as made:
        started = time.monotonic()
        found = ask_all(made, [call(str(n)) for n in range(40)])
        counts = server.counts()
    assert all(isinstance(one, Answered) for one in found)
    assert time.monotonic() - started >= 1
    assert counts["requests"] - counts["fine"] == counts["status429"] > 0


@pytest.mark.parametrize(
    ("status", "code", "field"),
    [
        (401, "", "endpoint.key_variable"),
        (402, "", "endpoint.key_variable"),
        (404, "", "endpoint.model"),
        (429, "insufficient_quota", "key_variable"),
    ],
)
def test_what_no_repetition_mends_stops_at_once(tmp_path: Path, status: int, code: str, field: str) -> None:
    with running(always=[status, code]) as server, client(server.url, tmp_path) as made:
        with pytest.raises(UserError, match=field) as stopped:
            made.run(made.reply(call("a"))).result()
        with pytest.raises(UserError):
            made.run(made.reply(call("b"))).result()
        assert server.counts()["requests"] == 1
    assert KEY not in str(stopped.value)


def test_a_call_that_the_endpoint_declines_is_rejected_alone(tmp_path: Path) -> None:
    with running(always=[400, "context_length_exceeded"]) as server, client(server.url, tmp_path) as made:
        (found,) = ask_all(made, [call("a")])
    assert isinstance(found, Rejected)
    assert found.reason.startswith("declined: status 400")


def test_an_endpoint_that_is_down_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with client(url, tmp_path, patience_seconds=0.5) as made:
            started = time.monotonic()
            found = ask_all(made, [call(str(n)) for n in range(50)])
            assert time.monotonic() - started < 20
    assert all(isinstance(one, Unanswered) and "connection failed" in one.reason for one in found)


def test_a_reply_that_does_not_come_in_time_is_asked_for_again(tmp_path: Path) -> None:
    with running(delay=0.6) as server, client(server.url, tmp_path, timeout_seconds=0.2, attempts=2) as made:
        with pytest.raises(NoReply, match=r"no reply within 0\.2 s, after 2 attempts"):
            made.run(made.reply(call("a"))).result()
        assert server.counts()["requests"] == 2


def test_a_folder_of_replies_serves_as_well_as_a_database(tmp_path: Path, bucket: str) -> None:
    calls = [call(str(n)) for n in range(20)]
    for path in (f"{bucket}/replies", str(tmp_path / "replies"), str(tmp_path / "replies.sqlite")):
        with running() as server, client(server.url, tmp_path, store=open_store(path)) as made:
            first = ask_all(made, calls)
        with client(server.url, tmp_path, store=open_store(path), offline=True) as made:
            assert ask_all(made, calls) == first
        assert sorted(one.key for one in calls) == list(open_store(path))


@pytest.mark.parametrize("name", ["replies", "replies.sqlite"])
def test_a_stored_reply_that_was_changed_is_named_and_not_used(tmp_path: Path, name: str) -> None:
    store = open_store(str(tmp_path / name))
    reply = Reply("half of a pair \ud800, and 17 apples", "stop", "", 20, 9)
    store.put("abcdef", reply)
    assert store.get("abcdef") == reply
    if name == "replies":
        path = tmp_path / name / "ab" / "abcdef.json"
        path.write_text(path.read_text().replace("17 apples", "18 apples"))
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as changed, changed:
            changed.execute("UPDATE replies SET reply = replace(reply, '17 apples', '18 apples')")
    with pytest.raises(UserError, match=r"abcdef.*: was changed since it was written; remove it, and it is asked for"):
        store.get("abcdef")


def test_whatever_changes_a_reply_changes_its_address() -> None:
    one = call("a")
    others = [
        call("b"),
        call("a", response_format={"type": "json_object"}),
        Call("n", one.messages, 0.0, 50),
        Call("m", one.messages, 0.5, 50),
        Call("m", one.messages, 0.0, 51),
    ]
    assert len({one.key, *(other.key for other in others)}) == 6
    assert call("a").key == one.key


def test_the_key_is_nowhere_but_in_the_request(tmp_path: Path) -> None:
    with running(rates=rates(0.3), log=str(tmp_path / "log")) as server, client(server.url, tmp_path) as made:
        ask_all(made, [call(str(n)) for n in range(50)])
    held = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(held) > 1000
    assert KEY.encode() not in held
    assert KEY not in repr(llm_clients.config("u"))
    assert KEY not in json.dumps(call("a").body)


def test_a_key_that_the_endpoint_repeats_is_not_passed_on(tmp_path: Path) -> None:
    said = f"Incorrect API key provided: {KEY}"
    for status in (200, 400, 401, 500):
        declining = serving(lambda *_, s=status: refusal(s, said))
        with declining as server, client(server.url, tmp_path, attempts=1) as made:
            (found,) = ask_all(made, [call("a")])
        assert "Incorrect API key provided: [key]" in str(found)
        assert KEY not in str(found)


def test_a_store_that_breaks_stops_all_calls(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "replies.sqlite"))
    with running() as server, client(server.url, tmp_path, store=store) as made:
        ask_all(made, [call("a")])
        with sqlite3.connect(tmp_path / "replies.sqlite") as broken:
            broken.execute("DROP TABLE replies")
        found = ask_all(made, [call("b"), call("c")])
        assert server.counts()["requests"] == 1
    assert all(isinstance(one, Unanswered) and "cannot be used as a store" in one.reason for one in found)


def test_a_store_that_was_cut_short_says_what_its_loss_costs(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as whole, whole:
        whole.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        whole.executemany("INSERT INTO replies VALUES (?, ?)", [(str(n), 200 * "x") for n in range(100)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"malformed\); restore it from a copy; to ask for all its replies, and"):
        open_store(str(path))


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_store_that_was_cut_to_nothing_is_not_taken_for_a_new_one(tmp_path: Path, size: int) -> None:
    path = tmp_path / "replies.sqlite"
    open_store(str(path))
    path.write_bytes(path.read_bytes()[:size])
    said = rf"^store: {path}: cannot be used .* \(it is cut short, to {size} bytes\); restore it from a copy; to ask"
    with pytest.raises(UserError, match=said):
        open_store(str(path))
    assert path.stat().st_size == size


def test_a_database_of_another_program_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE songs (name TEXT)")
    with pytest.raises(UserError, match="it has no table of replies"):
        open_store(str(path))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALL_PROXY", "socks5://me:secret@127.0.0.1:1080", "socksio"),
        ("ALL_PROXY", "socks9://me:secret@x", "Unknown scheme for proxy"),
        ("HTTPS_PROXY", "http://me:secret@127.0.0.1:x/", "Invalid port"),
        ("SSL_CERT_FILE", "/etc/passwd", "CERTIFICATE"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_line_without_its_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    for name in CLIENT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)
    for make in (lambda: Endpoint(llm_clients.config("http://127.0.0.1:9/v1"), KEY), lambda: _NotingClient(print)):
        with pytest.raises(
            UserError, match=f"^{variable}: set: cannot be used .*{said}.*; correct or unset it$"
        ) as told:
            make()
        assert "secret" not in str(told.value)


def test_a_store_for_which_there_is_no_room_is_one_line(tmp_path: Path) -> None:
    with (
        largest_file(1024),
        pytest.raises(UserError, match=r"^store: .*st\.sqlite: cannot be made .*; make room, or name"),
    ):
        open_store(str(tmp_path / "st.sqlite"))
    assert not list(tmp_path.iterdir())


def test_a_store_that_several_make_at_once_is_one(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    barrier = threading.Barrier(8)

    def put(number: int) -> None:
        barrier.wait()
        open_store(str(path)).put(str(number), Reply("text", "stop", "", 1, 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(8)))
    assert list(open_store(str(path))) == [str(number) for number in range(8)]
    assert all(each.name.startswith(path.name) for each in tmp_path.iterdir())  # nothing half made is left


def test_clients_of_many_threads_share_one_loop(tmp_path: Path) -> None:
    async def both(made: Client) -> list[object]:
        return list(await asyncio.gather(*(made.reply(call(str(n % 5))) for n in range(10))))

    with running() as server, client(server.url, tmp_path) as made:
        assert len(made.run(both(made)).result()) == 10
        assert server.counts()["requests"] == 5
