"""The server of tuned models: requests through its whole application, up to where a model would answer."""

import asyncio
import json
import random
from types import SimpleNamespace
from typing import Any, NoReturn, cast

from coi_jax.inference.rows import Prompt
from coi_jax.serving.app import make_app
from coi_jax.serving.errors import ApiError
from coi_jax.serving.metrics import Metrics
from coi_jax.serving.requests import ChatCompletion, TextCompletion, read_request
from coi_jax.serving.service import Limits, Served, Service
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from tests.helpers.configs import quickstart_config
from tests.helpers.fuzzing import Target
from tests.helpers.mutations import TEXTS, mutate_bytes, mutate_json_text, mutate_text

CHATS: tuple[dict[str, Any], ...] = (
    {
        "model": "run",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 1,
        "n": 2,
        "stop": ["\n"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 4,
        "logprobs": True,
        "top_logprobs": 2,
        "tools": [],
        "response_format": {"type": "text"},
        "user": "u",
    },
    {"coi": {"instructions": ["A", "B"], "input": "x", "outputs": ["y"]}, "max_completion_tokens": 3},
)
TEXT = {"prompt": ["a", "b"], "logprobs": 1, "echo": False, "best_of": 1, "suffix": None, "stop": "x", "n": 1}
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/run", "/", "/metrics", "/v1/coi/examples")
KEY = "secret-of-the-server"


class _StubService(Service):
    """A service whose model has a config and a vocabulary, and stops where it would have to answer."""

    def __init__(self) -> None:
        config = quickstart_config({"vocabulary.kind": "bytes", "data.length": 256})
        model = SimpleNamespace(config=config, vocabulary=ByteVocabulary(), checkpoint="1-a")
        model.prompt = lambda id, inputs: Prompt(id, inputs)
        scheduler = SimpleNamespace(limit=8, longest=256, is_ready=True)
        self.limits, self.metrics = Limits(1, 1, 1.0), Metrics()
        self.served = {"run": Served("run", cast("Any", model), cast("Any", scheduler))}

    def answer(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse."""
        raise ApiError(503, "no model")

    @property
    def is_ready(self) -> bool:
        """Return True."""
        return True


SERVICE = _StubService()
APP = make_app(SERVICE, ("localhost",), KEY)
LOOP = asyncio.new_event_loop()


def _body(rng: random.Random) -> bytes:
    return mutate_json_text(json.dumps(rng.choice((*CHATS, TEXT))), rng)


def _read_body(data: bytes) -> None:
    for schema in (ChatCompletion, TextCompletion):
        try:
            read_request(schema, data)
        except ApiError as error:
            _check(error.status, json.dumps(error.body()).encode())


def _check(status: int, body: bytes) -> None:
    """Hold that an error is one of the API's, in one line, and no failure of the server."""
    assert status != 500, body
    if status >= 400:
        error = json.loads(body)["error"]
        assert "\n" not in error["message"], error
        assert len(error["message"]) < 3000, error
    assert KEY.encode() not in body


def _request(rng: random.Random) -> dict[str, Any]:
    """Return the scope of a request and its body."""
    path = rng.choice(PATHS)
    headers = {"host": "localhost", "authorization": f"Bearer {KEY}", "content-type": "application/json"}
    method = rng.choice(("POST", "POST", "POST", "GET", "PUT", "OPTIONS"))
    body = _body(rng)
    match rng.randrange(8):
        case 0:
            path = mutate_text(path, rng)
        case 1:
            name = rng.choice([*headers])
            headers[name] = mutate_text(headers[name], rng)
        case 2:
            headers[rng.choice(("content-length", "transfer-encoding", "x", "range", "cookie"))] = rng.choice(TEXTS)
        case 3:
            body = mutate_bytes(body, rng)
    return {
        "path": path,
        "headers": headers,
        "method": method,
        "body": body,
        "query": rng.choice(("", "model=run", "model=%00&a")),
    }


def _send(given: dict[str, Any]) -> None:
    """Let the application answer a request, as uvicorn would give it."""
    path = given["path"].encode("utf-8", "replace").decode()
    headers = [(name.encode(), text.encode("utf-8", "replace")) for name, text in given["headers"].items()]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": given["method"],
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": given["query"].encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    received = iter([{"type": "http.request", "body": given["body"], "more_body": False}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        message = next(received, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    LOOP.run_until_complete(asyncio.wait_for(APP(scope, receive, send), 20))
    [start] = [message for message in sent if message["type"] == "http.response.start"]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    is_json = (b"content-type", b"application/json") in start["headers"]  # else a file of the page says what is wrong
    assert is_json or start["status"] < 500
    _check(start["status"] if is_json else 200, body)


def _raw(rng: random.Random) -> bytes:
    body = _body(rng)
    lines = [
        f"POST {rng.choice(PATHS)} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return mutate_bytes("\r\n".join([*lines, "", ""]).encode() + body, rng)


TARGETS: dict[str, Target] = {
    "request_body": Target(_body, _read_body, ()),
    "request": Target(_request, _send, ()),
}
