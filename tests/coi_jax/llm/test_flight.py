"""How many calls are in flight: as many as the config allows, and fewer where an endpoint is too slow for them."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from coi_jax.llm import Answered, ask
from coi_jax.llm.flight import Flight
from tests.helpers.llm_clients import Output, call, client
from tests.helpers.scripted_server import GOOD, Response, completion, serving


def test_the_limit_is_halved_once_for_all_calls_of_a_time_and_grows_again_with_replies() -> None:
    flight = Flight(12)
    started = time.monotonic()
    for _ in range(12):
        flight.timed_out(started, 9.0)
    assert flight.limit == 6
    flight.timed_out(time.monotonic(), 9.0)
    flight.timed_out(time.monotonic(), 9.0)
    flight.timed_out(time.monotonic(), 9.0)
    assert flight.limit == 1
    for _ in range(1000):
        flight.answered()
    assert flight.limit == 12


async def most_at_once(flight: Flight, calls: int) -> int:
    now = most = 0

    async def one() -> None:
        nonlocal now, most
        async with flight.call():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(one() for _ in range(calls)))
    return most


def test_no_more_calls_are_in_flight_than_the_limit() -> None:
    flight = Flight(8)
    assert asyncio.run(most_at_once(flight, 50)) == 8
    flight = Flight(8)
    flight.timed_out(time.monotonic(), 9.0)
    assert asyncio.run(most_at_once(flight, 50)) == 4


def test_the_note_names_the_calls_that_were_really_made(capsys: pytest.CaptureFixture[str]) -> None:
    async def four_time_out(flight: Flight) -> None:
        async with flight.call(), flight.call(), flight.call(), flight.call():
            flight.timed_out(time.monotonic(), 9.0)

    flight = Flight(64)
    asyncio.run(four_time_out(flight))
    assert "no reply within 9 s to 4 calls at once; 2 are made at once now" in capsys.readouterr().err
    assert flight.limit == 2


def test_a_server_that_answers_one_call_after_another_answers_all_of_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a server works on in vain for callers that have left: the queue grows where as many ask again."""
    turn = threading.Lock()

    def answer(_: dict[str, Any], __: int) -> Response:
        with turn:
            time.sleep(0.03)
        return completion(GOOD)

    with (
        serving(answer) as server,
        client(server.url, tmp_path, concurrency=32, timeout_seconds=0.25, attempts=7) as made,
    ):
        futures = [made.run(ask(made, call(str(n)), Output)) for n in range(40)]
        assert all(isinstance(future.result(timeout=60), Answered) for future in futures)
    assert set(made.failures) == {"no reply within 0.25 s"}
    assert made.failures.total() == made.counts["failed"] > 0
    said = capsys.readouterr().err
    assert (
        said.count("note: the endpoint gave no reply within 0.25 s to 32 calls at once; 16 are made at once now") == 1
    )
