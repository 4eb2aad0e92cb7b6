"""Calls of a language model, and its replies."""

import functools
import json
from dataclasses import asdict, dataclass
from typing import Any

from coi_jax.common import files

CHARACTERS_PER_TOKEN = 3.5  # of English text; real tokenizers take 3.5 to 4.5, so this errs to the dear side
TOKENS_PER_MESSAGE = 6  # that a chat's layout adds


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
      temperature: of sampling; 0 is greedy.
      max_tokens: of the reply.
      response_format: as the API has it, `{"type": "json_schema", …}`; None asks for free text.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    response_format: dict[str, Any] | None = None

    @functools.cached_property
    def body(self) -> dict[str, Any]:
        """The request's JSON body, as the chat completions and the Batch API have it."""
        body = {
            "model": self.model,
            "messages": [asdict(message) for message in self.messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        return body | ({"response_format": self.response_format} if self.response_format else {})

    @functools.cached_property
    def key(self) -> str:
        """The address of its reply: a hash of the body, so that whatever changes the reply changes the address."""
        return files.digest(self.body)

    @functools.cached_property
    def prompt_tokens(self) -> int:
        """About how many tokens the prompt has; the endpoint's own count comes with the reply."""
        text = sum(estimate_tokens(message.content) for message in self.messages)
        schema = estimate_tokens(json.dumps(self.response_format)) if self.response_format else 0
        return text + schema + TOKENS_PER_MESSAGE * len(self.messages)


def estimate_tokens(text: str) -> int:
    """About how many tokens some text has."""
    return int(len(text) / CHARACTERS_PER_TOKEN) + 1


@dataclass(frozen=True)
class Reply:
    """A completed reply, good or bad: it has been paid for.

    Attributes:
      text: what the model wrote.
      finish_reason: "stop", "length" (cut at `max_tokens`), "content_filter", …
      refusal: the model's words where it declined; else "".
      prompt_tokens, completion_tokens: the endpoint's count.
    """

    text: str
    finish_reason: str
    refusal: str
    prompt_tokens: int
    completion_tokens: int


def read_reply(body: Any) -> Reply:
    """Return the reply in a chat completion's JSON body, as the endpoint sends it or a batch's output file holds it.

    Raises:
      ValueError: it is not one.
    """
    try:
        choice, usage = body["choices"][0], body.get("usage") or {}
        message = choice["message"]
        return Reply(
            text=message.get("content") or "",
            finish_reason=choice.get("finish_reason") or "stop",
            refusal=message.get("refusal") or "",
            prompt_tokens=int(usage.get("prompt_tokens", 0)),
            completion_tokens=int(usage.get("completion_tokens", 0)),
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not a chat completion: {type(error).__name__} {error}") from None
