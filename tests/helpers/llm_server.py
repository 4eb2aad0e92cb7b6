"""An OpenAI-compatible server on loopback that answers as it is told, and errs at given rates.

`python -m tests.helpers.llm_server` runs one by itself; tests start it as a child process (`running`), so that it does
not share a core's thread with the client. What it does for a request follows from the request and from how often it
came: the same seed, the same faults.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from coi_jax.common import files
from tests.helpers.fake_batch_api import BatchDesk
from tests.helpers.fake_llm import BRAINS

CONNECTION = ("drop", "status429", "status500", "cut")  # after which there is no reply
WORDS = ("prose", "refuse", "schema")  # of a reply
FAULTS = (*CONNECTION, *WORDS)
Brain = Callable[[dict[str, Any]], str]


class Server:
    """Answers chat completions, and batches of them.

    Args:
      brain: the text of a reply to a request's body.
      rates: of each of FAULTS, of all attempts.
      delay: seconds before a reply.
      retry_after: seconds that a status 429 asks to wait.
      always: a status, and the code of its error, of every reply; None: as the rates say.
      log: where every request is written with its fault, before it is answered.
    """

    def __init__(
        self,
        brain: Brain,
        rates: dict[str, float],
        delay: float,
        seed: int,
        log: str | None,
        retry_after: str,
        always: list[Any] | None,
    ) -> None:
        self._brain, self._rates, self._delay, self._seed = brain, rates, delay, seed
        self._retry_after, self._always = retry_after, always
        self._log = open(log, "a", encoding="utf-8", buffering=1) if log else None
        self._attempts: collections.Counter[str] = collections.Counter()
        self._batches = BatchDesk(self.batched)
        self.counts: collections.Counter[str] = collections.Counter()
        self.now = 0

    async def serve(self, port: int) -> None:
        """Serves until it is cancelled; prints its port first."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=512)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = lines[0].split()
                if not await self._answer(method, path, body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; False where the connection must end."""
        if path == "/counts":
            return send(writer, 200, json.dumps(self.counts).encode())
        if not path.endswith("/chat/completions"):
            return send(writer, 200, self._batches.answer(method, path, body))
        request = json.loads(body)
        key, fault = self.receive(request)
        self.now += 1
        self.counts["most_at_once"] = max(self.counts["most_at_once"], self.now)
        await asyncio.sleep(self._delay)
        self.now -= 1
        if self._always:
            return send(writer, self._always[0], error("no", self._always[1]))
        if fault == "drop":
            return False
        if fault == "status429":
            return send(writer, 429, error("slow down"), {"Retry-After": self._retry_after})
        if fault == "status500":
            return send(writer, 500, error("something broke"))
        data = json.dumps(self._completion(key, request, fault)).encode()
        return send(writer, 200, data[: len(data) // 2] if fault == "cut" else data)

    def receive(self, request: dict[str, Any]) -> tuple[str, str | None]:
        """Counts and logs a request; returns its key, as the client's store has it, and what goes wrong with it."""
        key = files.digest(request)
        self._attempts[key] += 1
        fault = self._fault(key)
        self.counts["requests"] += 1
        self.counts[fault or "fine"] += 1
        if self._log:
            self._log.write(json.dumps({"key": key, "fault": fault}) + "\n")
        return key, fault

    def _fault(self, key: str) -> str | None:
        """What breaks a connection depends on the attempt too; what a model says does not: it would say it again."""
        of_words = self._draw(f"{self._seed} {key}", WORDS)
        return self._draw(f"{self._seed} {key} {self._attempts[key]}", CONNECTION) or of_words

    def _draw(self, seed: str, faults: tuple[str, ...]) -> str | None:
        drawn = random.Random(seed).random()
        for fault in faults:
            drawn -= self._rates.get(fault, 0.0)
            if drawn < 0:
                return fault
        return None

    def batched(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of a reply within a batch: what would break a connection is a status 500 there."""
        key, fault = self.receive(request)
        if fault not in CONNECTION:
            return 200, self._completion(key, request, fault)
        return 500, {"error": {"message": "something broke"}}

    def _completion(self, key: str, request: dict[str, Any], fault: str | None) -> dict[str, Any]:
        text: str | None = self._brain(request)
        if fault == "prose":
            text = "Sure! Here is what I think about it."
        if fault == "schema":
            text = json.dumps({"answer": "in another form"})
        message = {"role": "assistant", "content": text, "refusal": None}
        if fault == "refuse":
            message |= {"content": None, "refusal": "I cannot help with that."}
        prompt = sum(len(turn["content"]) for turn in request["messages"]) // 4 + 1
        usage = {"prompt_tokens": prompt, "completion_tokens": len(text or "") // 4 + 1}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {
            "id": f"c-{key[:8]}",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [choice],
            "usage": usage,
        }


def error(message: str, code: str = "") -> bytes:
    return json.dumps({"error": {"message": message, "code": code}}).encode()


def send(writer: asyncio.StreamWriter, status: int, data: bytes, headers: dict[str, str] | None = None) -> bool:
    lines = [
        f"HTTP/1.1 {status} X",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        *(f"{name}: {text}" for name, text in (headers or {}).items()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode() + data)
    return True


def rates(total: float) -> dict[str, float]:
    """All faults, equally likely, so many of all attempts."""
    return dict.fromkeys(FAULTS, total / len(FAULTS))


class Running:
    """A server in a process of its own."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def counts(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/counts") as reply:
            found: dict[str, int] = json.load(reply)
            return found


@contextlib.contextmanager
def running(**options: Any) -> Iterator[Running]:
    """A server with options of the command line, while the block runs."""
    flags = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()]
    command = [sys.executable, "-m", "tests.helpers.llm_server", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Running(int(process.stdout.readline()))
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log")
    parser.add_argument("--retry_after", default="0.05")
    parser.add_argument("--always", type=json.loads, help="status and code, as JSON")
    parser.add_argument("--brain", choices=BRAINS, default="echo")
    parser.add_argument("--rates", type=json.loads, default={}, help="of each fault, as JSON; a number: all together")
    arguments = parser.parse_args()
    given = rates(arguments.rates) if isinstance(arguments.rates, float) else arguments.rates
    server = Server(
        BRAINS[arguments.brain](),
        given,
        arguments.delay,
        arguments.seed,
        arguments.log,
        arguments.retry_after,
        arguments.always,
    )
    asyncio.run(server.serve(arguments.port))


if __name__ == "__main__":
    main()
