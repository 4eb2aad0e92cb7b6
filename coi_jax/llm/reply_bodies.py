"""Reads the body of a response with status 200: a reply, which is kept, or what is to be asked for again.

A chat completion was paid for, so it is kept whatever its content is. Any other body, such as `{}` or the page of a
proxy, is a reply that was lost on its way. An error in the body means what it would mean as the status of the response.
"""

import json
from typing import Any

from coi_jax.common.errors import shorten
from coi_jax.common.json_reader import json_kind
from coi_jax.llm.calls import UNUSABLE, NotCompletion, Reply, UnusableContent, read_reply, unusable_reply
from coi_jax.llm.failures import Busy, EndpointError

CHOICES = b'"choices"'  # the key that only a chat completion has
STATUSES = range(400, 600)  # that an error may name


class ErrorInBody(Exception):
    """The body tells an error."""

    def __init__(self, error: EndpointError) -> None:
        super().__init__(error.reason)
        self.error = error


def parse_reply(data: bytes) -> Reply:
    """Return the reply that a body holds; a whole chat completion that cannot be read is kept as it is.

    Raises:
      Busy: the body was cut on its way, or is no chat completion.
      ErrorInBody: it tells an error.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        if _looks_whole(data):
            return unusable_reply(data, f"{UNUSABLE}: {_reason(error)}")
        raise Busy(f"unreadable reply ({_reason(error)})", lost=True) from None
    return reply_of(body, data)


def _reason(error: Exception) -> str:
    """Return why JSON was not read, in words about the JSON: not about the limits of Python."""
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return shorten(str(error), 200)
    return "it is nested too deep" if isinstance(error, RecursionError) else "it holds a number that is too long"


def _looks_whole(data: bytes) -> bool:
    """Return whether text that is not read as JSON is a chat completion, and was not cut on its way."""
    text = data.strip()
    return text.startswith(b"{") and text.endswith(b"}") and CHOICES in text


def reply_of(body: Any, data: bytes) -> Reply:
    """Return the reply that a body holds; a chat completion whose content cannot be used is kept as it is.

    Args:
      body: as JSON.
      data: as it came.

    Raises:
      Busy: it is no chat completion.
      ErrorInBody: it tells an error.
    """
    error = _error_in(body)
    if error:
        raise ErrorInBody(_endpoint_error(error))
    try:
        return read_reply(body)
    except UnusableContent as fault:
        return unusable_reply(data, str(fault))
    except NotCompletion as fault:
        raise Busy(f"{fault} ({_described(body)})", lost=True) from None


def _error_in(body: Any) -> Any:
    """Return the error of a body that has no choices, or of its first choice."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    if not choices:
        return body.get("error")
    first = choices[0] if isinstance(choices, list) else None
    return first.get("error") if isinstance(first, dict) else None


def _endpoint_error(error: Any) -> EndpointError:
    fields = error if isinstance(error, dict) else {}
    code = fields.get("code")
    status = next((found for name in ("code", "status") if (found := _status(fields.get(name)))), None)
    message = fields.get("message")
    return EndpointError(status, str(code or ""), str(message or error), in_body=True)


def _status(value: Any) -> int | None:
    """Return the status that a field of an error names, as 429 or "429"."""
    text = str(value)
    return int(text) if len(text) == 3 and text.isdecimal() and int(text) in STATUSES else None


def _described(body: Any) -> str:
    """Return what a body is that is no chat completion, in a few words."""
    if not isinstance(body, dict):
        return json_kind(body)
    return f"an object with the keys {shorten(', '.join(body), 100)}" if body else "an empty object"
