"""Replies of a closed schema: validated, repaired once by the model itself, else rejected with what it wrote."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import pydantic

from coi_jax.common.errors import UserError, shorten
from coi_jax.llm.budget import BudgetReached
from coi_jax.llm.calls import FILTERED, Call, Message, Reply
from coi_jax.llm.client import Client, NoReply, NotStored
from coi_jax.llm.failures import Declined
from coi_jax.llm.reply_objects import object_texts, without_thoughts

Answer = TypeVar("Answer", bound=pydantic.BaseModel)
QUOTED_CHARACTERS = 4000  # of a reply that a repair shows to the model again: about a page
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
    """No reply of the wanted form, and none to be had: why, and what the model wrote each time.

    `is_declined` says that the endpoint declined the call: nothing was paid, and another try may find it mended.
    """

    reason: str
    raw: tuple[str, ...]
    usage: Usage = NO_USAGE
    is_declined: bool = False


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
    outcome = await _ask(client, call, kind)
    if isinstance(outcome, Answered):
        client.counts["usable"] += 1
    elif isinstance(outcome, Rejected) and not outcome.is_declined:
        client.count_unusable(outcome.reason)
    return outcome


async def _ask(client: Client, call: Call, kind: type[Answer]) -> Outcome[Answer]:
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
            return Rejected(f"declined: {error}", tuple(raw), usage, is_declined=True)
        usage = usage.plus(reply)
        keys.append(call.key)
        raw.append(_encodable(reply.refusal or reply.text))
        if reply.fault:
            return Rejected(reply.fault, tuple(raw), usage)
        if reply.refusal or reply.finish_reason == FILTERED:
            return Rejected("refused", tuple(raw), usage)
        try:
            return Answered(read(reply, kind), tuple(keys), usage)
        except ValueError as error:
            fault = str(error)
        call = repair(call, reply, fault)
    return Rejected(f"not of the wanted form: {fault}", tuple(raw), usage)


def read(reply: Reply, kind: type[Answer]) -> Answer:
    """Return the value that a reply spells: alone, or as the one object of its form behind thoughts or in prose.

    Raises:
      ValueError: it spells none, or several; the message says where, in one line.
    """
    if reply.finish_reason == "length":
        raise ValueError("cut short: it was longer than it may be")
    if not _is_encodable(reply.text):
        raise ValueError("it holds half of a character (a lone surrogate)")
    try:
        return _value(reply.text, kind)
    except ValueError as error:
        found, faults = _values_within(without_thoughts(reply.text), kind)
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError("it holds several different objects of the form asked for") from None
        raise faults[0] if len(faults) == 1 else error from None


def _values_within(text: str, kind: type[Answer]) -> tuple[list[Answer], list[ValueError]]:
    """Return the different values that the objects of a text spell, and what is wrong with the other objects."""
    found: list[Answer] = []
    faults: list[ValueError] = []
    for candidate in object_texts(text):
        try:
            value = _value(candidate, kind)
        except ValueError as error:
            faults.append(error)
        else:
            found += [] if value in found else [value]
    return found, faults


def _value(text: str, kind: type[Answer]) -> Answer:
    try:
        return kind.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None


def _is_encodable(text: str) -> bool:
    """Return whether a text can be written as UTF-8: it holds no half of a surrogate pair."""
    return text.isascii() or text == text.encode("utf-8", "replace").decode()


def _encodable(text: str) -> str:
    r"""Return a text with halves of surrogate pairs written out, as `\ud83d`."""
    return text.encode("utf-8", "backslashreplace").decode()


def repair(call: Call, reply: Reply, fault: str) -> Call:
    """Return the call that asks for the same once more, with the reply that was wrong and what was wrong with it.

    Of a long reply only the beginning is shown: the prompt is paid for.

    Args:
      call: the question.
      reply: that cannot be used.
      fault: what is wrong with it.
    """
    text = _encodable(reply.text[:QUOTED_CHARACTERS]) + (" …" if len(reply.text) > QUOTED_CHARACTERS else "")
    wish = f"That cannot be used ({shorten(fault, 200)}). Reply again, with one JSON object of the form asked for."
    turns = (Message("assistant", text or "(nothing)"), Message("user", wish))
    return dataclasses.replace(call, messages=(*call.messages, *turns))
