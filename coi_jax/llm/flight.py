"""The number of calls in flight at once: fewer where an endpoint is too slow for as many as the config allows.

A server that works on one call after another answers the last of many too late: the call times out, is asked again, and
stands at the end of the queue once more, so that in the end no call is answered. Where a call times out, half as many
are in flight from then on; with every so many replies it is one more again.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Flight:
    """The calls in flight of one event loop.

    Args:
      most: calls at once.

    Attributes:
      limit: calls at once, for now.
    """

    def __init__(self, most: int) -> None:
        self.limit, self._most = most, most
        self._now, self._room = 0, asyncio.Condition()
        self._replies, self._lowered_at = 0, 0.0  # replies since the limit was changed, and when it was last halved
        self._said = False

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Wait until a call may be made, and count it while the block runs."""
        async with self._room:
            await self._room.wait_for(lambda: self._now < self.limit)
            self._now += 1
        try:
            yield
        finally:
            self._now -= 1
            async with self._room:
                self._room.notify(max(self.limit - self._now, 0))

    def answered(self) -> None:
        """Count a reply: after as many as may be in flight, one call more may be."""
        self._replies += 1
        if self.limit < self._most and self._replies >= self.limit:
            self.limit, self._replies = self.limit + 1, 0

    def timed_out(self, started: float, seconds: float) -> None:
        """Halve the limit, once for all the calls that were in flight together; say so the first time.

        Args:
          started: when the call began that got no reply.
          seconds: after which it was given up.
        """
        if started < self._lowered_at:
            return
        asked = min(self._now, self.limit) if self._now > 1 else self.limit
        self.limit = max(asked // 2, 1)
        self._lowered_at, self._replies = time.monotonic(), 0
        if not self._said:
            self._said = True
            now = f"{self.limit} are made at once now, fewer if need be"
            fewer = f" to {asked} calls at once; {now}" if self._now > 1 else ""
            wish = "if it is only slow, raise endpoint.timeout_seconds"
            print(f"note: the endpoint gave no reply within {seconds:g} s{fewer}; {wish}", file=sys.stderr, flush=True)
