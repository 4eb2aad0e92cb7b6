"""An OpenAI-compatible server on loopback, in this process, whose every reply a test writes itself."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helpers.fake_batch_api import BatchDesk

GOOD = '{"output": "x"}'
USAGE = {"prompt_tokens": 100, "completion_tokens": 20}


@dataclass(frozen=True)
class Response:
    """A status, a body and headers; `drip` are the seconds between two bytes of the body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    drip: float = 0.0


Answer = Callable[[dict[str, Any], int], Response]  # to a request's body, and how many came before it


@dataclass
class Served:
    """A server: where it is, and what it was asked, in order."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)


def completion(content: Any, usage: Any = USAGE, finish_reason: str = "stop") -> Response:
    """A chat completion with some content, whatever it is."""
    message = {"role": "assistant", "content": content}
    body = {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage}
    return Response(200, json.dumps(body).encode())


def refusal(status: int, message: str, **headers: str) -> Response:
    return Response(status, json.dumps({"error": {"message": message}}).encode(), headers)


@contextlib.contextmanager
def serving(answer: Answer, *, has_batches: bool = True, otherwise: int = 404, **desk: bool) -> Iterator[Served]:
    """A server, while the block runs; `desk` are options of its Batch API, `otherwise` the status without one."""
    served = Served("")

    def put(request: dict[str, Any]) -> Response:
        served.requests.append(request)
        return answer(request, len(served.requests) - 1)

    def put_in_batch(request: dict[str, Any]) -> tuple[int, Any]:
        response = put(request)
        return response.status, json.loads(response.body)

    batches = BatchDesk(put_in_batch, **desk)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.endswith("/chat/completions"):
                self._send(put(json.loads(body)))
            elif has_batches:
                self._send(Response(200, batches.answer(self.command, self.path, body)))
            else:
                self._send(refusal(otherwise, "nothing here"))

        def _send(self, response: Response) -> None:
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client has had enough
                if not response.drip:
                    self.wfile.write(response.body)
                for byte in response.body if response.drip else b"":
                    self.wfile.write(bytes([byte]))
                    time.sleep(response.drip)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield served
        finally:
            server.shutdown()
