"""Rate limits of an endpoint: requests and tokens per minute, and the pauses that it asks for."""

import asyncio
import random
import time

from aiolimiter import AsyncLimiter

from coi_jax.llm.settings import EndpointConfig

FIRST_PAUSE_SECONDS = 0.5  # at most, after a first failure; each later one is up to twice as long
LONGEST_PAUSE_SECONDS = 30.0
BURST_SECONDS = 1.0  # of a minute's allowance that may be used at once


class RateLimits:
    """The rate limits that one process keeps, in one event loop."""

    def __init__(self, config: EndpointConfig) -> None:
        self._requests = _limiter(config.requests_per_minute, config.processes)
        self._tokens = _limiter(config.tokens_per_minute, config.processes)
        self._resume_at = 0.0

    async def wait(self, tokens: int) -> None:
        """Return when a call of so many tokens may be made."""
        while (left := self._resume_at - time.monotonic()) > 0:
            await asyncio.sleep(left)
        if self._requests:
            await self._requests.acquire()
        while self._tokens and tokens > 0:  # a call may need more than the bucket holds
            await self._tokens.acquire(min(tokens, self._tokens.max_rate))
            tokens -= int(self._tokens.max_rate)

    async def pause(self, attempt: int, retry_after: float) -> None:
        """Wait after a failed attempt (counted from 0): a random time that grows, so that calls spread out.

        Where the endpoint names a time, no other call is made before it either.
        """
        if retry_after:
            self._resume_at = max(self._resume_at, time.monotonic() + retry_after)
        longest = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(retry_after + random.uniform(0, longest))


def _limiter(per_minute: int | None, processes: int) -> AsyncLimiter | None:
    """Return a leaky bucket for this process's share of a limit."""
    if not per_minute:
        return None
    per_second = per_minute / processes / 60
    return AsyncLimiter(max(per_second * BURST_SECONDS, 1.0), max(BURST_SECONDS, 1 / per_second))
