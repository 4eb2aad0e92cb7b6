"""An OpenAI-compatible server on loopback that answers as it is told, and errs at given rates.

`python -m tests.llm.server` runs one by itself; tests start it as a child process, so that it does not share a core's
thread with the client. What it does for a request follows from the request and from how often it came: the same seed,
the same faults.
"""

import argparse
import asyncio
import collections
import hashlib
import json
import random
import sys
from typing import Any

FAULTS = ("drop", "status429", "status500", "cut", "prose", "refuse", "schema")


class Server:
    """Answers chat completions.

    Args:
      brain: the text of a reply to a request's body.
      rates: of each of FAULTS, of all attempts.
      delay: seconds before a reply.
      log: where each completed reply is written, by the hash of its request.
    """

    def __init__(self, brain: Any, rates: dict[str, float], delay: float, seed: int, log: str | None) -> None:
        self._brain, self._rates, self._delay, self._seed = brain, rates, delay, seed
        self._log = open(log, "a", encoding="utf-8", buffering=1) if log else None
        self._attempts: collections.Counter[str] = collections.Counter()
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
                if not await self._answer(lines[0].split()[1], headers, body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; False where the connection must end."""
        if path == "/counts":
            return self._send(writer, 200, dict(self.counts))
        name = hashlib.sha256(body).hexdigest()
        self._attempts[name] += 1
        fault = self._fault(name)
        self.counts["requests"] += 1
        self.counts[fault or "fine"] += 1
        self.now += 1
        self.counts["most_at_once"] = max(self.counts["most_at_once"], self.now)
        await asyncio.sleep(self._delay)
        self.now -= 1
        return self._reply(fault, name, json.loads(body), writer)

    def _fault(self, name: str) -> str | None:
        drawn = random.Random(f"{self._seed} {name} {self._attempts[name]}").random()
        for fault, rate in self._rates.items():
            drawn -= rate
            if drawn < 0:
                return fault
        return None

    def _reply(self, fault: str | None, name: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        if fault == "drop":
            return False
        if fault == "status429":
            return self._send(writer, 429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}},
                              {"Retry-After": "0.05"})  # fmt: skip
        if fault == "status500":
            return self._send(writer, 500, {"error": {"message": "something broke"}})
        text = self._brain(body)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if fault == "prose":
            message["content"] = "Sure! Here is what I think about it."
        if fault == "schema":
            message["content"] = json.dumps({"answer": "in another form"})
        if fault == "refuse":
            message |= {"content": None, "refusal": "I cannot help with that."}
        prompt = sum(len(turn["content"]) for turn in body["messages"]) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": len(text) // 4 + 1, "total_tokens": prompt}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        completion = {"id": f"c-{name[:8]}", "object": "chat.completion", "created": 0, "model": body["model"],
                      "choices": [choice], "usage": usage}  # fmt: skip
        if self._log and fault != "cut":
            self._log.write(json.dumps({"request": name, "attempt": self._attempts[name]}) + "\n")
        return self._send(writer, 200, completion, cut=fault == "cut")

    def _send(
        self, writer: asyncio.StreamWriter, status: int, value: Any, headers: dict[str, str] | None = None,
        cut: bool = False,
    ) -> bool:  # fmt: skip
        data = json.dumps(value).encode()
        data = data[: len(data) // 2] if cut else data  # with the length of what is left: half a JSON text
        lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(data)}",
                 *(f"{name}: {text}" for name, text in (headers or {}).items())]  # fmt: skip
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log")
    parser.add_argument("--brain", default="echo")
    parser.add_argument("--rates", type=json.loads, default={})
    arguments = parser.parse_args()
    brain = BRAINS[arguments.brain]
    server = Server(brain, arguments.rates, arguments.delay, arguments.seed, arguments.log)
    asyncio.run(server.serve(arguments.port))


def echo(body: dict[str, Any]) -> str:
    return json.dumps({"output": f"an answer to {len(body['messages'])} turns"})


BRAINS = {"echo": echo}

if __name__ == "__main__":
    sys.exit(main())
