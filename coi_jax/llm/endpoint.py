"""One attempt at a call, by the openai client."""

import asyncio
import contextlib
import dataclasses
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2  # that the openai client is made with
import openai

from coi_jax.common.errors import UserError, without_password
from coi_jax.llm.calls import UNUSABLE, Call, Reply, unusable_reply, with_estimates
from coi_jax.llm.failures import (
    Busy,
    Declined,
    EndpointError,
    TimedOut,
    connection_fault,
    error_of_status,
    meaning_of,
    without_key,
)
from coi_jax.llm.reply_bodies import ErrorInBody, parse_reply
from coi_jax.llm.reply_formats import ReplyFormats, with_format
from coi_jax.llm.settings import EndpointConfig

POOL = 8  # connections
# What the client reads of the environment as it is made.
CLIENT_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
MOST_BYTES = 8 * 2**20  # of a reply's body
MOST_COMPRESSED_BYTES = MOST_BYTES // 100  # where an endpoint compresses it, though it was asked not to
KEPT_BYTES = 4096  # of a body that is longer


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
        reasons: list[Declined] = []
        for name in self._formats.to_try(call.body):
            try:
                reply = await self._post(with_format(call.body, name))
            except Declined as declined:
                reasons.append(declined)
                if not self._formats.may_be_unknown(name, is_named=declined.is_about_format):
                    break
            else:
                self._formats.accept(name, call.body, str(reasons[0]) if reasons else "")
                return reply
        # Where the call is declined as text too, the format is not what is wrong with it.
        raise next((reason for reason in reversed(reasons) if not reason.is_about_format), reasons[0])

    async def _post(self, body: dict[str, Any]) -> Reply:
        client, seconds = next(self._clients), self._config.timeout_seconds
        try:
            async with asyncio.timeout(seconds):  # the client's own limit is for each part of a body
                response = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            raise self._meaning(error_of_status(error), error.response) from None
        except (openai.APITimeoutError, TimeoutError):
            raise TimedOut(seconds) from None
        except openai.APIConnectionError as error:
            lost = not isinstance(error.__cause__, httpx2.ConnectError)
            raise Busy(connection_fault(error), lost=lost) from None
        except TooLong as error:
            return with_estimates(unusable_reply(error.start, f"{UNUSABLE}: {error}"), body)
        try:
            return with_estimates(parse_reply(response.content), body)
        except ErrorInBody as told:
            message = without_key(told.error.message, response.request)
            raise self._meaning(dataclasses.replace(told.error, message=message), response) from None

    def _meaning(self, error: EndpointError, response: httpx2.Response) -> Exception:
        return meaning_of(error, self._config, response.headers, has_answered=self._formats.has_answered)


@contextlib.contextmanager
def environment_errors() -> Iterator[None]:
    """Turn what a client raises, as it is made, about proxies and certificates into an error that names the variables.

    Raises:
      UserError: an environment variable names a proxy, or a file of certificates, that the client cannot use.
    """
    try:
        yield
    except (ImportError, ValueError, OSError, httpx2.InvalidURL) as error:
        known = [name for name in os.environ if name.upper() in CLIENT_VARIABLES and os.environ[name]]
        if not known:
            raise
        reason = without_password(str(error))
        raise UserError(" or ".join(known), "set", f"cannot be used ({reason}); correct or unset it") from None


def _client(config: EndpointConfig, key: str) -> openai.AsyncOpenAI:
    limits = httpx2.Limits(max_connections=POOL, max_keepalive_connections=POOL)
    with environment_errors():
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
