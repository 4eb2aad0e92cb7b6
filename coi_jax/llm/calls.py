"""Calls of a language model, and its replies."""

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from coi_jax.common import files
from coi_jax.llm.settings import TokenLimitField

CHARACTERS_PER_TOKEN = 3.5  # of English text; real tokenizers take 3.5 to 4.5, so this errs to the dear side
TOKENS_PER_MESSAGE = 6  # that a chat's layout adds
MOST_TOKENS = 10_000_000  # that an endpoint may count for one reply; larger counts are taken for nonsense
NO_COMPLETION = "not a chat completion"  # what is wrong with a body that no reply can be read from
UNUSABLE = "unusable completion"  # what is wrong with one whose reply is there, but cannot be used
FILTERED = "content_filter"  # the finish reason of a reply that the endpoint holds back
TEXT_PARTS = ("text", "output_text")  # types of the parts of a reply that are its text; others hold thoughts


class NotCompletion(ValueError):
    """A body that is no chat completion."""


class UnusableContent(ValueError):
    """A chat completion with a content that is no text."""


@dataclass(frozen=True)
class Message:
    """A turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, eq=False)
class Call:
    """One request for a chat completion: all that decides over its reply, and so its address in a store.

    Attributes:
      model: as the endpoint names it.
      messages: the conversation so far.
      temperature: of sampling; 0 is greedy; None leaves it to the endpoint.
      max_tokens: of the reply.
      response_format: as the API has it, `{"type": "json_schema", …}`; None asks for free text.
      token_limit_field: the field of the body that holds `max_tokens`.
      options: more fields of the body.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float | None
    max_tokens: int
    response_format: dict[str, Any] | None = None
    token_limit_field: TokenLimitField = "max_tokens"
    options: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def body(self) -> dict[str, Any]:
        """The request's JSON body, as the chat completions and the Batch API have it."""
        turns = [asdict(message) for message in self.messages]
        body: dict[str, Any] = {"model": self.model, "messages": turns}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        body[self.token_limit_field] = self.max_tokens
        if self.response_format:
            body["response_format"] = self.response_format
        return body | dict(self.options)

    @functools.cached_property
    def key(self) -> str:
        """The address of its reply: a hash of the body, so that whatever changes the reply changes the address."""
        return files.digest(self.body)

    @functools.cached_property
    def prompt_tokens(self) -> int:
        """About how many tokens the prompt has; the endpoint's own count comes with the reply."""
        return estimate_prompt_tokens(self.body)


def estimate_tokens(text: str) -> int:
    """About how many tokens some text has."""
    return int(len(text) / CHARACTERS_PER_TOKEN) + 1


def estimate_prompt_tokens(body: Mapping[str, Any]) -> int:
    """About how many tokens the prompt of a request's body has."""
    text = sum(estimate_tokens(message["content"]) for message in body["messages"])
    schema = estimate_tokens(json.dumps(body["response_format"])) if "response_format" in body else 0
    return text + schema + TOKENS_PER_MESSAGE * len(body["messages"])


def token_limit(body: Mapping[str, Any]) -> int:
    """Return the tokens that a reply to a request's body may have."""
    return int(body["max_completion_tokens"] if "max_completion_tokens" in body else body["max_tokens"])


@dataclass(frozen=True)
class Reply:
    """A completed reply, good or bad: it has been paid for.

    Attributes:
      text: what the model wrote; of a completion that cannot be used the whole body.
      finish_reason: "stop", "length" (cut at `max_tokens`), "content_filter", …
      refusal: the model's words where it declined; else "".
      prompt_tokens, completion_tokens: the endpoint's count, or an estimate where it gives none.
      fault: why the completion cannot be used; "" where it can.
      is_estimate: whether the tokens are an estimate.
    """

    text: str
    finish_reason: str
    refusal: str
    prompt_tokens: int
    completion_tokens: int
    fault: str = ""
    is_estimate: bool = False

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Reply":
        """Return a reply from its fields, also where an earlier version kept the parts of a text as its text."""
        return cls(**{**row, "text": _text(row["text"])})


def read_reply(body: Any) -> Reply:
    """Return the reply in a chat completion's JSON body, as the endpoint sends it or a batch's output file holds it.

    Raises:
      NotCompletion: it is no chat completion.
      UnusableContent: it is one with a content that is no text.
    """
    choice, message = _choice_and_message(body)
    refusal, finish_reason, usage = message.get("refusal"), choice.get("finish_reason"), body.get("usage")
    try:
        text = _text(message.get("content"))
    except TypeError as error:
        raise UnusableContent(f"{UNUSABLE}: {error}") from None
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = (_count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(
        text=text,
        finish_reason=finish_reason if isinstance(finish_reason, str) and finish_reason else "stop",
        refusal=refusal if isinstance(refusal, str) else "",
        prompt_tokens=prompt,
        completion_tokens=completion,
        is_estimate=not prompt or (not completion and bool(text)),
    )


def _choice_and_message(body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first choice of a chat completion and its message, which one that was filtered may lack."""
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and message is None and choice.get("finish_reason") == FILTERED:
        message = {}
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise NotCompletion(f"{NO_COMPLETION}: it has no message in choices[0]")
    return choice, message


def _text(content: Any) -> str:
    """Return the text of a message's content, which is a text, a list of parts or nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError("content is neither a text nor a list of parts")
    return "".join(_part(part) for part in content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    is_text = isinstance(part, dict) and part.get("type", "text") in TEXT_PARTS
    return part["text"] if is_text and isinstance(part.get("text"), str) else ""


def _count(value: Any) -> int:
    """Return a number of tokens; 0 where the endpoint's is none that can be: absent, negative, not finite."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value <= MOST_TOKENS else 0


def unusable_reply(data: bytes, fault: str) -> Reply:
    """Return the reply that keeps the body of a completion which cannot be used: another would cost again.

    Args:
      data: the body.
      fault: what is wrong with it.
    """
    return Reply(data.decode("utf-8", "backslashreplace"), "stop", "", 0, 0, fault, is_estimate=True)


def with_estimates(reply: Reply, body: Mapping[str, Any] | None) -> Reply:
    """Return a reply with an estimate of its tokens where the endpoint counts none.

    Args:
      reply: as the endpoint sent it.
      body: of the request, where it is known.
    """
    if not reply.is_estimate:
        return reply
    prompt = estimate_prompt_tokens(body) if body else 0
    return replace(reply, prompt_tokens=prompt, completion_tokens=estimate_tokens(reply.text))
