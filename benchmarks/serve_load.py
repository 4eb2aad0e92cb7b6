"""Measures the server under load: many clients on loopback, every answer checked against the offline engine's.

  python -m benchmarks.serve_load --workdir runs/quickstart/coi123-0d32f8 --clients 64 --seconds 600
  python -m benchmarks.serve_load --workdir runs/coi12 --clients 8 --seconds 60 --url http://127.0.0.1:8080

Clients ask the chains of the run's own test split, each again as soon as it has its answer, the first half in streams.
Beside it stands the offline engine with as many slots, which answers the same chains. With --url another server of
OpenAI's API is asked the same prompts as text, and its answers are not checked. Prints JSON; exits with status 1 where
a request failed or an answer differs.
"""

import asyncio
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from benchmarks import machine, sides
from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import read_chains
from coi_jax.common import cli
from coi_jax.common.files import digest
from coi_jax.data.prompts import prompt
from coi_jax.inference.answering import ask
from coi_jax.inference.model import Model, load_to_ask
from coi_jax.parallel.processes import start_jax

LIMITS = httpx2.Limits(max_connections=None)
MEMORY_SECONDS = 5.0  # between two looks at the server's memory
WARM = 0.25  # the part of the time after which its memory should stay as it is


@dataclass(frozen=True)
class Case:
    """A request and the answer that is due; None where any is right."""

    body: dict[str, Any]
    expected: str | None


@dataclass
class Measured:
    """What the clients saw."""

    answers: int = 0
    tokens: int = 0
    first: list[float] = field(default_factory=list)  # seconds to the first token
    per_token: list[float] = field(default_factory=list)  # seconds, after the first
    whole: list[float] = field(default_factory=list)  # seconds to the whole answer
    faults: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)  # bytes that the server has, every few seconds
    seconds: float = 0.0  # that it took


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run folder, of python -m coi_jax.train")
    parser.add_argument("--clients", type=cli.positive_int, default=64, help="that ask at the same time")
    parser.add_argument("--seconds", type=cli.positive_float, default=60.0, help="for which they ask")
    parser.add_argument("--slots", type=cli.positive_int, help="of the server; else as many as clients")
    parser.add_argument("--chains", type=cli.positive_int, default=200, help="different ones that are asked")
    parser.add_argument("--url", help="of another server, which is asked in place of this project's")
    parser.add_argument("--model", help="the name of the model there")
    arguments = parser.parse_args(rest)
    start_jax()
    slots = arguments.slots or arguments.clients
    model = load_to_ask(arguments.workdir, overrides | {"evaluation.batch": slots, "evaluation.decoding": "greedy"})
    chains = choose_chains(model.config.data.folder, arguments.chains)
    limit = model.config.evaluation.max_new_tokens
    report: dict[str, Any] = {"clients": arguments.clients, "slots": slots, "max_new_tokens": limit}
    if arguments.url:
        cases = [_text_case(model, chain, arguments.model, limit) for chain in chains]
        measured = asyncio.run(_load(arguments.url, "/v1/completions", cases, arguments.clients, arguments.seconds))
        report |= {"server": arguments.url} | describe(measured)
    else:
        offline, texts = answer_offline(model, chains)
        cases = [_chain_case(chain, text, limit) for chain, text in zip(chains, texts, strict=True)]
        with _server(arguments.workdir, slots, overrides) as (url, process):
            load = _load(url, "/v1/chat/completions", cases, arguments.clients, arguments.seconds, process.pid)
            measured = asyncio.run(load)
        report |= describe(measured) | {"offline_tokens_per_second": offline}
        report["share_of_offline"] = round(report["tokens_per_second"] / offline, 3)
    print(json.dumps({"benchmark": "serve"} | machine.describe() | report, indent=2))
    return 1 if measured.faults else 0


def choose_chains(folder: str, count: int) -> list[Chain]:
    """Return some test chains of a dataset, of all its lengths, in an order that does not follow from theirs."""
    return sorted(read_chains(folder, "test"), key=lambda chain: digest(chain.id))[:count]


def answer_offline(model: Model, chains: Sequence[Chain]) -> tuple[float, list[str]]:
    """Return the tokens a second of the offline engine, compiled before, and its answers.

    Args:
      model: that answers.
      chains: that are asked.
    """
    questions = [ask(model, [step.instruction for step in chain.steps], chain.input) for chain in chains]
    prompts = [model.prompt(str(n), np.array(each.encode([]), np.int32)) for n, each in enumerate(questions)]
    answers = {answer.index: answer.tokens for answer in model.answers(prompts)}
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        answers = {answer.index: answer.tokens for answer in model.answers(prompts)}
        seconds.append(time.perf_counter() - started)
    texts = [model.vocabulary.decode(answers[n]) for n in range(len(chains))]
    return round(sum(map(len, answers.values())) / sorted(seconds)[1], 1), texts


def _chain_case(chain: Chain, text: str, limit: int) -> Case:
    coi = {"instructions": [step.instruction for step in chain.steps], "input": chain.input}
    return Case({"messages": [], "coi": coi, "temperature": 0, "max_tokens": limit}, text)


def _text_case(model: Model, chain: Chain, name: str | None, limit: int) -> Case:
    text = prompt(chain.instruction, chain.input, "alpaca")
    return Case({"model": name, "prompt": text, "temperature": 0, "max_tokens": limit}, None)


@contextlib.contextmanager
def _server(workdir: str, slots: int, overrides: dict[str, Any]) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Start this project's server; yield its address once it is ready, and its process."""
    command = [sys.executable, "-m", "coi_jax.serve", "--workdir", workdir, "--port", "0", "--slots", str(slots)]
    environment = sides.ENVIRONMENT | os.environ
    with subprocess.Popen(
        [*command, *cli.override_flags(overrides)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, "the server has not started"
            url = found[0].rstrip("/")
            while httpx2.get(f"{url}/ready").status_code != HTTPStatus.OK:
                time.sleep(0.1)
            yield url, process
        finally:
            process.terminate()


async def _load(
    url: str, path: str, cases: Sequence[Case], clients: int, seconds: float, process: int | None = None
) -> Measured:
    """Let clients ask for some seconds, each the cases from another one on; watch the memory of a process."""
    measured, started = Measured(), time.monotonic()
    async with httpx2.AsyncClient(base_url=url, timeout=120.0, limits=LIMITS) as client:
        watching = asyncio.create_task(_watch(process, measured.memory)) if process else None
        asking = (
            _ask_until(_Client(client, path, n < clients // 2), _from(cases, n), started + seconds, measured)
            for n in range(clients)
        )
        await asyncio.gather(*asking)
        measured.seconds = time.monotonic() - started
        if watching:
            watching.cancel()
    return measured


def _from(cases: Sequence[Case], first: int) -> Iterator[Case]:
    return itertools.islice(itertools.cycle(cases), first * 7 % len(cases), None)


@dataclass(frozen=True)
class _Client:
    client: httpx2.AsyncClient
    path: str
    streams: bool

    async def ask(self, case: Case, measured: Measured) -> tuple[str, int]:
        """Return the text of an answer and its number of tokens; note the times."""
        started = time.perf_counter()
        text, tokens = await (self._stream(case, measured) if self.streams else self._whole(case))
        measured.whole.append(time.perf_counter() - started)
        return text, tokens

    async def _whole(self, case: Case) -> tuple[str, int]:
        reply = (await self.client.post(self.path, json=case.body)).raise_for_status().json()
        [choice] = reply["choices"]
        return _text_of(choice, "message"), reply["usage"]["completion_tokens"]

    async def _stream(self, case: Case, measured: Measured) -> tuple[str, int]:
        body = case.body | {"stream": True, "stream_options": {"include_usage": True}}
        started, first, text, tokens = time.perf_counter(), 0.0, "", 0
        async with self.client.stream("POST", self.path, json=body) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                part = json.loads(line.removeprefix("data: "))
                new = "".join(_text_of(choice, "delta") for choice in part["choices"])
                first = first or (time.perf_counter() if new else 0.0)
                text += new
                tokens = (part.get("usage") or {}).get("completion_tokens", tokens)
        now = time.perf_counter()
        measured.first.append((first or now) - started)
        if tokens > 1:
            measured.per_token.append((now - (first or now)) / (tokens - 1))
        return text, tokens


def _text_of(choice: dict[str, Any], key: str) -> str:
    """Return the text of a choice, or of a part of one: of a chat under a key, of a completion as it is."""
    return choice["text"] if "text" in choice else choice[key].get("content") or ""


async def _ask_until(client: _Client, cases: Iterator[Case], end: float, measured: Measured) -> None:
    while time.monotonic() < end:
        case = next(cases)
        try:
            text, tokens = await client.ask(case, measured)
        except (httpx2.HTTPError, json.JSONDecodeError, KeyError) as error:
            measured.faults.append(f"{type(error).__name__}: {error}")
            continue
        measured.answers += 1
        measured.tokens += tokens
        if case.expected is not None and text != case.expected:
            measured.faults.append(f"another answer: {text!r}, not {case.expected!r}")


async def _watch(process: int, memory: list[int]) -> None:
    status = Path(f"/proc/{process}/statm")
    while True:
        memory.append(int(status.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        await asyncio.sleep(MEMORY_SECONDS)


def describe(measured: Measured) -> dict[str, Any]:
    """Return what was measured: rates, percentiles in milliseconds, and how the memory grew after the warm-up."""
    memory = measured.memory[int(WARM * len(measured.memory)) :]
    return {
        "seconds": round(measured.seconds, 1),
        "answers": measured.answers,
        "faults": len(measured.faults),
        "first_faults": measured.faults[:3],
        "answers_per_second": round(measured.answers / measured.seconds, 2),
        "tokens_per_second": round(measured.tokens / measured.seconds, 1),
        "first_token_ms": _percentiles(measured.first),
        "token_ms": _percentiles(measured.per_token),
        "answer_ms": _percentiles(measured.whole),
        "memory_mib": {"begin": memory[0] >> 20, "end": memory[-1] >> 20} if memory else {},
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    return {f"p{share}": round(1000 * float(np.percentile(seconds, share)), 2) for share in (50, 99)} if seconds else {}


if __name__ == "__main__":
    sys.exit(cli.run(main))
