"""Replies of a closed schema: validated, repaired once by the model itself, else rejected with what it wrote."""

import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import pydantic

from coi_jax.common.errors import UserError, shorten
from coi_jax.llm.budget import BudgetReached
from coi_jax.llm.calls import Call, Message, Reply
from coi_jax.llm.client import Client, NoReply, NotStored
from coi_jax.llm.endpoint import Declined

Answer = TypeVar("Answer", bound=pydantic.BaseModel)
_FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
BUDGET = "budget"  # why a call has no answer


class Usage(NamedTuple):
    """The usage of replies; stored ones count too, though they cost nothing again."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, reply: Reply) -> "Usage":
        """Return the usage with one more reply."""
        return Usage(
            self.calls + 1, self.prompt_tokens + reply.prompt_tokens, self.completion_tokens + reply.completion_tokens
        )


NO_USAGE = Usage()


@dataclass(frozen=True)
class Answered(Generic[Answer]):
    """A reply of the wanted form. `keys` are the addresses of the replies that it took."""

    value: Answer
    keys: tuple[str, ...]
    usage: Usage = NO_USAGE


@dataclass(frozen=True)
class Rejected:
    """No reply of the wanted form, and none to be had: why, and what the model wrote each time."""

    reason: str
    raw: tuple[str, ...]
    usage: Usage = NO_USAGE


@dataclass(frozen=True)
class Unanswered:
    """No reply yet. Asking again may help, with a larger budget where the reason is `BUDGET`.

    `call` is the body of a call that an offline client did not find in its store.
    """

    reason: str
    call: dict[str, Any] | None = None


Outcome = Answered[Answer] | Rejected | Unanswered


@functools.cache  # a schema takes longer to make than a call
def response_format(structured: str, kind: type[pydantic.BaseModel]) -> dict[str, Any] | None:
    """Return what the API is told of a reply's form: see `EndpointConfig.structured`."""
    if structured == "json_schema":
        schema = {"name": kind.__name__, "strict": True, "schema": kind.model_json_schema()}
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "json_object"} if structured == "json_object" else None


async def ask(client: Client, call: Call, kind: type[Answer]) -> Outcome[Answer]:
    """Ask for a reply of a form, and a second time, with what was wrong, where the first has another one.

    Args:
      client: that is asked.
      call: the question.
      kind: the schema of the reply.
    """
    raw: list[str] = []
    keys: list[str] = []
    usage, fault = NO_USAGE, ""
    for _ in range(2):
        try:
            reply = await client.reply(call)
        except BudgetReached:
            return Unanswered(BUDGET)
        except NotStored as error:
            return Unanswered(str(error), call.body)
        except (NoReply, UserError) as error:
            return Unanswered(str(error))
        except Declined as error:
            return Rejected(f"declined: {error}", tuple(raw), usage)
        usage = usage.plus(reply)
        keys.append(call.key)
        raw.append(reply.refusal or reply.text)
        if reply.refusal or reply.finish_reason == "content_filter":
            return Rejected("refused", tuple(raw), usage)
        try:
            return Answered(read(reply, kind), tuple(keys), usage)
        except ValueError as error:
            fault = str(error)
        call = repair(call, reply, fault)
    return Rejected(f"not of the wanted form: {fault}", tuple(raw), usage)


def read(reply: Reply, kind: type[Answer]) -> Answer:
    """Return the value that a reply spells, alone or in a fenced block.

    Raises:
      ValueError: it spells none; the message says where, in one line.
    """
    if reply.finish_reason == "length":
        raise ValueError("cut short: it was longer than it may be")
    fenced = _FENCED.fullmatch(reply.text.strip())
    try:
        return kind.model_validate_json(fenced[1] if fenced else reply.text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None


def repair(call: Call, reply: Reply, fault: str) -> Call:
    """Return the call that asks for the same once more, with the reply that was wrong and what was wrong with it.

    Args:
      call: the question.
      reply: that cannot be used.
      fault: what is wrong with it.
    """
    wish = f"That cannot be used ({shorten(fault, 200)}). Reply again, with one JSON object of the form asked for."
    turns = (Message("assistant", reply.text), Message("user", wish))
    return dataclasses.replace(call, messages=(*call.messages, *turns))
