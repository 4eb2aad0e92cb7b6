"""One attempt at a call, by the openai client, and what its failures mean."""

import asyncio
import email.utils
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2  # that the openai client is made with
import openai

from coi_jax.common.errors import UserError, shorten
from coi_jax.llm.calls import NO_COMPLETION, Call, Reply, read_reply, unusable_reply, with_estimates
from coi_jax.llm.reply_formats import ReplyFormats, is_about_formats, with_format
from coi_jax.llm.settings import EndpointConfig

FORBIDDEN = 403
HOPELESS = {
    401: "the key is wrong",
    402: "there is no money left for it",
    FORBIDDEN: "the key does not allow it",
    404: "there is no such model or address",
}
DECLINED = (400, 413, 422)  # statuses that say that this call, and no other, is wrong
INTERNAL_ERROR = 500  # with which some servers decline a format, as the one of llama-cpp-python does
POOL = 8  # connections
OUT_OF_MONEY = "insufficient_quota"  # a 429 that waiting does not cure
MOST_BYTES = 8 * 2**20  # of a reply's body
MOST_COMPRESSED_BYTES = MOST_BYTES // 100  # where an endpoint compresses it, though it was asked not to
KEPT_BYTES = 4096  # of a body that is longer
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


class TooLong(Exception):
    """A reply's body has more bytes than any reply; `start` is its beginning."""

    def __init__(self, start: bytes) -> None:
        super().__init__(f"longer than {MOST_BYTES:,} bytes")
        self.start = start


class Endpoint:
    """The chat completions of an endpoint.

    The openai client's own retries are off: a pace must know of every attempt. Calls go by its general `post`: building
    a chat completion's typed request and response takes longer than all else. A pool of connections looks through all
    of them at every call, so there are several small ones.
    """

    def __init__(self, config: EndpointConfig, key: str) -> None:
        self._config, self._formats = config, ReplyFormats()
        pools = -(-config.concurrency // POOL)
        self._clients = itertools.cycle([_client(config, key) for _ in range(pools)])
        self._pools = pools

    async def close(self) -> None:
        """Close all connections."""
        for _ in range(self._pools):
            await next(self._clients).close()

    async def complete(self, call: Call) -> Reply:
        """Return the reply to a call, in a weaker format where the endpoint does not know the one that is asked for.

        Raises:
          Busy, Declined: see there.
          UserError: no call can succeed: the key, the model or the address is wrong, or there is no money left.
        """
        first: Declined | None = None
        for name in self._formats.to_try(call.body):
            try:
                reply = await self._post(with_format(call.body, name))
            except Declined as declined:
                first = first or declined
                if not self._formats.may_be_unknown(name, is_named=declined.is_about_format):
                    break
            else:
                self._formats.accept(name, call.body, str(first or ""))
                return reply
        assert first
        raise first

    async def _post(self, body: dict[str, Any]) -> Reply:
        client, seconds = next(self._clients), self._config.timeout_seconds
        try:
            async with asyncio.timeout(seconds):  # the client's own limit is for each part of a body
                response = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            if error.status_code == FORBIDDEN and self._formats.has_answered:  # not the key, but what this call asks
                raise Declined(reason_of(error)) from None
            raise status_meaning(error, self._config) from None
        except (openai.APITimeoutError, TimeoutError):
            raise TimedOut(seconds) from None
        except openai.APIConnectionError as error:
            lost = not isinstance(error.__cause__, httpx2.ConnectError)
            raise Busy(connection_fault(error), lost=lost) from None
        except TooLong as error:
            return with_estimates(unusable_reply(error.start, f"{NO_COMPLETION}: {error}"), body)
        return with_estimates(parse_reply(response.content), body)


def parse_reply(data: bytes) -> Reply:
    """Return the reply that a body holds; one that is complete and no chat completion is kept as it is.

    Raises:
      Busy: the body was cut on its way, or tells an error.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        if data.lstrip()[:1] == b"{" and data.rstrip()[-1:] == b"}":
            return unusable_reply(data, f"{NO_COMPLETION}: {shorten(str(error), 200)}")
        raise Busy(f"unreadable reply ({shorten(str(error), 200)})", lost=True) from None
    return reply_of(body, data)


def reply_of(body: Any, data: bytes) -> Reply:
    """Return the reply that a body holds, or one that keeps it where it is no chat completion.

    Args:
      body: as JSON.
      data: as it came.

    Raises:
      Busy: it tells an error.
    """
    if isinstance(body, dict) and body.get("error") and not body.get("choices"):
        raise Busy(f"an error in place of a reply ({shorten(body['error'], 200)})", lost=True)
    try:
        return read_reply(body)
    except ValueError as error:
        return unusable_reply(data, str(error))


def status_meaning(error: openai.APIStatusError, config: EndpointConfig) -> Exception:
    """Return what an error of an endpoint means: a mistake of the user, a call that is declined, or another attempt."""
    status, reason = error.status_code, reason_of(error)
    if status in HOPELESS:
        field = "endpoint.model" if status == 404 else "endpoint.key_variable"
        value = config.model if status == 404 else config.key_variable
        return UserError(field, value, f"{HOPELESS[status]}: the endpoint says {reason}")
    if error.code == OUT_OF_MONEY:
        return UserError("endpoint.key_variable", config.key_variable, f"the endpoint says {reason}")
    is_about_format = is_about_formats(error.message)
    if status in DECLINED or (status == INTERNAL_ERROR and is_about_format):
        return Declined(reason, is_about_format=is_about_format)
    return Busy(reason, retry_after(error.response.headers))


def reason_of(error: openai.APIStatusError) -> str:
    """Return what an endpoint says about a request that it did not answer, without the key, should it repeat it."""
    key = error.request.headers.get("authorization", "").removeprefix("Bearer ")
    message = error.message.replace(key, "[key]") if key else error.message
    return f"status {error.status_code} ({shorten(message, 200)})"


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


def _client(config: EndpointConfig, key: str) -> openai.AsyncOpenAI:
    limits = httpx2.Limits(max_connections=POOL, max_keepalive_connections=POOL)
    connections = openai.DefaultAsyncHttpxClient(
        limits=limits, timeout=config.timeout_seconds, event_hooks={"response": [_limit_body]}
    )
    return openai.AsyncOpenAI(
        api_key=key,
        base_url=config.base_url,
        max_retries=0,
        timeout=config.timeout_seconds,
        default_headers={"Accept-Encoding": "identity"},  # so that the bytes that come are those that are kept
        http_client=connections,
    )


async def _limit_body(response: httpx2.Response) -> None:
    """Let the body of a response, which is about to be read, have no more bytes than a reply or an error has."""
    is_compressed = response.headers.get("content-encoding", "identity") != "identity"
    most = MOST_COMPRESSED_BYTES if is_compressed else MOST_BYTES
    response.stream = _LimitedStream(response.stream, KEPT_BYTES if response.is_error else most, cut=response.is_error)


class _LimitedStream(httpx2.AsyncByteStream):
    """The bytes of a body up to a limit, after which it ends, or ends with an error."""

    def __init__(self, stream: Any, most: int, *, cut: bool) -> None:
        self._stream, self._most, self._cut = stream, most, cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        start, count = b"", 0
        async for part in self._stream:
            start = (start + part)[:KEPT_BYTES]
            count += len(part)
            if count <= self._most:
                yield part
            elif self._cut:
                yield part[: self._most - count]
                return
            else:
                raise TooLong(start)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds of a `Retry-After` header, which is a number or a date; 0 where it is neither."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return 0.0 if math.isnan(seconds) else max(seconds, 0.0)


def _seconds_until(date: str) -> float:
    try:
        parsed = email.utils.parsedate_tz(date)
        return email.utils.mktime_tz(parsed) - time.time() if parsed else 0.0
    except (ValueError, OverflowError):
        return 0.0
