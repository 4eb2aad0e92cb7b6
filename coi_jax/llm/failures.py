"""Why a call has no reply, and what that means: a mistake of the user, a call that is declined, or another attempt."""

import email.utils
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2  # that the openai client is made with
import openai

from coi_jax.common.errors import UserError, shorten
from coi_jax.llm.reply_formats import is_about_formats
from coi_jax.llm.settings import EndpointConfig

FORBIDDEN = 403
HOPELESS = {
    401: "the key is wrong",
    402: "there is no money left for it",
    FORBIDDEN: "the key does not allow it",
    404: "there is no such model or address",
}
SHORTEST_KEY = 8  # characters; a word that is given where an endpoint asks for no key may stand in any message
DECLINED = (400, 413, 422)  # statuses that say that this call, and no other, is wrong
INTERNAL_ERROR = 500  # with which some servers decline a format, as the one of llama-cpp-python does
OUT_OF_MONEY = "insufficient_quota"  # a 429 that waiting does not cure
LONGEST_WAIT = 86_400.0  # seconds; an endpoint that asks to wait longer, or without end, asks to wait as long as this
# How a request that an endpoint declines may be changed, by what its reason names.
REMEDIES = {
    "max_tokens": "set endpoint.token_limit_field to max_completion_tokens",
    "max_completion_tokens": "set endpoint.token_limit_field to max_tokens",
    "temperature": "set endpoint.temperature to None, or to what the model takes",
    "response_format": "set endpoint.structured to json_object or text",
    "reasoning_effort": "set endpoint.reasoning_effort to what the model takes",
}


class Busy(Exception):
    """The endpoint has not answered, and may the next time.

    `retry_after` are the seconds that it asks to wait; `lost` says that a reply may have been made, and charged for.
    """

    def __init__(self, reason: str, retry_after: float = 0.0, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.retry_after, self.lost = retry_after, lost


class TimedOut(Busy):
    """The endpoint has not answered within the time for a reply."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no reply within {seconds:g} s", lost=True)


class Declined(Exception):
    """The endpoint will not answer this call as it is, as where its prompt is too long; nothing was paid.

    `is_about_format` says that the reason is the format of the reply, as the endpoint's whole message tells.
    """

    def __init__(self, reason: str, *, is_about_format: bool = False) -> None:
        super().__init__(reason)
        self.is_about_format = is_about_format


@dataclass(frozen=True)
class EndpointError:
    """An error that an endpoint tells, by the status of its response or in the body of one whose status is 200.

    Attributes:
      status: of the response, or as the body names it; None where it names none.
      code: the endpoint's name of the error; "" where it gives none.
      message: what the endpoint says.
      in_body: whether the status of the response is 200.
    """

    status: int | None
    code: str
    message: str
    in_body: bool = False

    @property
    def reason(self) -> str:
        """Return what the endpoint says, in a short line."""
        what = "an error in place of a reply" if self.status is None else f"status {self.status}"
        return f"{what} ({shorten(self.message, 200)})"


def error_of_status(error: openai.APIStatusError) -> EndpointError:
    """Return the error of a response, without the key, should the endpoint repeat it."""
    message = without_key(error.message, error.request)
    return EndpointError(error.status_code, str(error.code or ""), message)


def without_key(text: str, request: httpx2.Request) -> str:
    """Return a text of an endpoint without the key that a request was made with."""
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    return text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text


def meaning_of(
    error: EndpointError, config: EndpointConfig, headers: Mapping[str, str], *, has_answered: bool = False
) -> Exception:
    """Return what an error of an endpoint means: a mistake of the user, a call that is declined, or another attempt.

    Args:
      error: of the endpoint.
      config: of the endpoint.
      headers: of the response.
      has_answered: whether the endpoint has answered other calls, so that its key is right.
    """
    status, reason = error.status, error.reason
    if status == FORBIDDEN and has_answered:  # not the key, but what this call asks
        return Declined(reason)
    if status in HOPELESS:
        field = "endpoint.model" if status == 404 else "endpoint.key_variable"
        value = config.model if status == 404 else config.key_variable
        return UserError(field, value, f"{HOPELESS[status]}: the endpoint says {reason}")
    if error.code == OUT_OF_MONEY:
        return UserError("endpoint.key_variable", config.key_variable, f"the endpoint says {reason}")
    is_about_format = is_about_formats(error.message)
    if status in DECLINED or (status == INTERNAL_ERROR and is_about_format):
        return Declined(reason, is_about_format=is_about_format)
    return Busy(reason, retry_after(headers), lost=is_lost(error))


def is_lost(error: EndpointError) -> bool:
    """Return whether the endpoint may have made a reply, and charged for it, before it failed."""
    return error.in_body and (error.status is None or error.status >= INTERNAL_ERROR)


def connection_fault(error: Exception) -> str:
    """Return what went wrong with a connection, as the HTTP client tells it."""
    cause = error.__cause__ or error
    return f"connection failed ({type(cause).__name__}: {shorten(str(cause) or 'no reason', 200)})"


def declines_all(reason: str, declined: int, asked: int) -> UserError:
    """Return the error for an endpoint that declines too many calls.

    Args:
      reason: of the endpoint, about most of them.
      declined: how many calls it declined.
      asked: of how many.
    """
    remedy = next((remedy for name, remedy in REMEDIES.items() if name in reason), "correct the endpoint's settings")
    hint = (
        f"the endpoint declined {declined:,} of {asked:,} calls: {reason}; {remedy}, or allow a larger declined_share"
    )
    return UserError("endpoint", "declined", hint)


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds of a `Retry-After` header, a number or a date; 0 where it is neither, a day at most."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


def _seconds_until(date: str) -> float:
    try:
        parsed = email.utils.parsedate_tz(date)
        return email.utils.mktime_tz(parsed) - time.time() if parsed else 0.0
    except (ValueError, OverflowError):
        return 0.0
