"""One attempt at a call, by the openai client, and what its failures mean."""

import email.utils
import itertools
import json
import time
from collections.abc import Mapping

import httpx2  # that the openai client is made with
import openai

from coi_jax.common.errors import UserError, shorten
from coi_jax.llm.calls import Call, Reply, estimate_tokens, read_reply
from coi_jax.llm.settings import EndpointConfig

HOPELESS = {401: "the key is wrong", 403: "the key does not allow it", 404: "there is no such model or address"}
DECLINED = (400, 413, 422)  # statuses that say that this call, and no other, is wrong
POOL = 8  # connections
OUT_OF_MONEY = "insufficient_quota"  # a 429 that waiting does not cure


class Busy(Exception):
    """The endpoint has not answered, and may the next time.

    `retry_after` are the seconds that it asks to wait; `lost` says that a reply may have been made, and charged for.
    """

    def __init__(self, reason: str, retry_after: float = 0.0, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.retry_after, self.lost = retry_after, lost


class Declined(Exception):
    """The endpoint will never answer this call, as where its prompt is too long."""


class Endpoint:
    """The chat completions of an endpoint.

    The openai client's own retries are off: a pace must know of every attempt. Calls go by its general `post`: building
    a chat completion's typed request and response takes longer than all else. A pool of connections looks through all
    of them at every call, so there are several small ones.
    """

    def __init__(self, config: EndpointConfig, key: str) -> None:
        self._config = config
        pools = -(-config.concurrency // POOL)
        self._clients = itertools.cycle([_client(config, key) for _ in range(pools)])
        self._pools = pools

    async def close(self) -> None:
        """Close all connections."""
        for _ in range(self._pools):
            await next(self._clients).close()

    async def complete(self, call: Call) -> Reply:
        """Return the reply to a call.

        Raises:
          Busy, Declined: see there.
          UserError: no call can succeed: the key, the model or the address is wrong, or there is no money left.
        """
        try:
            response = await next(self._clients).post("/chat/completions", body=call.body, cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            raise self._meaning(error) from None
        except openai.APITimeoutError:
            raise Busy(f"no reply within {self._config.timeout_seconds:g} s", lost=True) from None
        except openai.APIConnectionError as error:
            lost = not isinstance(error.__cause__, httpx2.ConnectError)
            raise Busy(f"connection failed ({type(error.__cause__ or error).__name__})", lost=lost) from None
        try:
            reply = read_reply(json.loads(response.content))
        except ValueError as error:
            raise Busy(f"unreadable reply ({error})", lost=True) from None
        return reply if reply.prompt_tokens else _counted(reply, call)

    def _meaning(self, error: openai.APIStatusError) -> Exception:
        status = error.status_code
        reason = f"status {status} ({shorten(error.message, 200)})"
        if status in HOPELESS:
            field = "endpoint.model" if status == 404 else "endpoint.key_variable"
            value = self._config.model if status == 404 else self._config.key_variable
            return UserError(field, value, f"{HOPELESS[status]}: the endpoint says {reason}")
        if error.code == OUT_OF_MONEY:
            return UserError("endpoint.key_variable", self._config.key_variable, f"the endpoint says {reason}")
        if status in DECLINED:
            return Declined(reason)
        return Busy(reason, _retry_after(error.response.headers))


def _client(config: EndpointConfig, key: str) -> openai.AsyncOpenAI:
    limits = httpx2.Limits(max_connections=POOL, max_keepalive_connections=POOL)
    connections = openai.DefaultAsyncHttpxClient(limits=limits, timeout=config.timeout_seconds)
    return openai.AsyncOpenAI(
        api_key=key,
        base_url=config.base_url,
        max_retries=0,
        timeout=config.timeout_seconds,
        http_client=connections,
    )


def _counted(reply: Reply, call: Call) -> Reply:
    """Return a reply of an endpoint that counts no tokens, with an estimate of them."""
    return Reply(reply.text, reply.finish_reason, reply.refusal, call.prompt_tokens, estimate_tokens(reply.text))


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds of a `Retry-After` header, which is a number or a date; 0 where there is none."""
    value = headers.get("retry-after", "")
    try:
        return max(float(value), 0.0)
    except ValueError:
        date = email.utils.parsedate_tz(value)
    return max(email.utils.mktime_tz(date) - time.time(), 0.0) if date else 0.0
