"""Readers of what an endpoint sends: bodies, replies of a form, results of batches; and of stored replies."""

import json
import random
from typing import Any

from coi_jax.judging.spans import occurs, reply_form
from coi_jax.judging.verdicts import Verdict
from coi_jax.llm import batch_lines
from coi_jax.llm.calls import Call, Message, Reply, with_estimates
from coi_jax.llm.failures import Busy
from coi_jax.llm.reply_bodies import ErrorInBody, parse_reply
from coi_jax.llm.reply_store import _decoded
from coi_jax.llm.structured import read, repair
from tests.helpers.fuzzing import Target
from tests.helpers.mutations import mutate_json_text, mutate_text

KEY = "ab" * 32
BODY: dict[str, Any] = {
    "id": "c-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": '{"reason": "r", "better": "first"}'},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}
PARTS = {
    "choices": [{"message": {"content": [{"type": "text", "text": "a"}, "b"], "refusal": None}, "finish_reason": None}]
}
ERRORS = (
    {"error": {"message": "slow down", "code": "rate_limit_exceeded", "status": 429}},
    {"choices": [{"error": {"message": "no", "code": 500}}]},
)
LINE = {"id": "r", "custom_id": KEY, "response": {"status_code": 200, "body": BODY}, "error": None}
REFUSED = {
    "custom_id": KEY,
    "response": {"status_code": 400, "body": {"error": {"message": "no"}}},
    "error": None,
}
TEXTS = (
    '{"reason": "r", "better": "first"}',
    '<think>{"reason": 1}</think>Here: ```json\n{"reason": "é", "better": "tie"}\n``` and {"x": [1, {"y": null}]}',
    '{"step_1": {"span": "a", "correct": true}, "step_2": {"span": "b", "correct": false}}',
)
STORED = {"text": "a", "finish_reason": "stop", "refusal": "", "prompt_tokens": 1, "completion_tokens": 2, "fault": ""}
CALL = Call("m", (Message("user", "q"),), 0.0, 10)


def _read_body(data: bytes) -> None:
    """Read a body as that of a reply, in all ways in which a reply is used."""
    reply = with_estimates(parse_reply(data), CALL.body)
    _use(reply)


def _use(reply: Reply) -> None:
    assert 0 <= reply.prompt_tokens < 10**9
    assert 0 <= reply.completion_tokens < 10**9
    for kind in (Verdict, reply_form(2)):
        fault = ""
        try:
            read(reply, kind)
        except ValueError as error:
            fault = str(error)
        assert "\n" not in fault, fault
        repair(CALL, reply, fault)
    occurs(reply.text[:100], reply.text)


def _read_text(text: str) -> None:
    _use(Reply(text, "stop", "", 1, 1))


def _read_line(data: bytes) -> None:
    for line in batch_lines.split_lines([data[:40], data[40:]]):
        found = batch_lines.read_line(line)
        if isinstance(found.outcome, Reply):
            _use(found.outcome)


def _body(rng: random.Random) -> bytes:
    return mutate_json_text(json.dumps(rng.choice((BODY, BODY, PARTS, *ERRORS))), rng)


def _line(rng: random.Random) -> bytes:
    data = mutate_json_text(json.dumps(rng.choice((LINE, REFUSED))), rng)
    return data + rng.choice((b"\n", b"", b"\r\n", b"\n\n"))


def _stored(rng: random.Random) -> bytes:
    return mutate_json_text(json.dumps(STORED), rng)


TARGETS: dict[str, Target] = {
    "llm_body": Target(_body, _read_body, (Busy, ErrorInBody)),
    "llm_text": Target(lambda rng: mutate_text(rng.choice(TEXTS), rng, TEXTS), _read_text),
    "batch_line": Target(_line, _read_line),
    "stored_reply": Target(_stored, lambda data: _decoded(data, "x")),
}
