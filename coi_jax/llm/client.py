"""Calls in flight: many at once, on an event loop of their own, each answered from the store where it can be."""

import asyncio
import collections
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from coi_jax.common.errors import UserError
from coi_jax.llm.budget import Budget, BudgetReached
from coi_jax.llm.calls import Call, Reply
from coi_jax.llm.endpoint import Busy, Endpoint
from coi_jax.llm.rate_limits import RateLimits
from coi_jax.llm.reply_store import Store
from coi_jax.llm.settings import EndpointConfig

Value = TypeVar("Value")


class NoReply(Exception):
    """The endpoint did not answer a call; asking again, later, may help."""


class NotStored(NoReply):
    """The store has no reply, and the client is offline."""


class Client:
    """Replies to calls, from any number of threads.

    Args:
      config: of the endpoint, resolved.
      key: of the endpoint.
      store: of replies; what it has is not asked again.
      budget: from which every call is paid.
      offline: answer from the store alone.

    Attributes:
      counts: how many calls were answered from the store ("stored"), were answered by the endpoint ("asked"), and how
        many attempts failed ("failed").
    """

    def __init__(
        self, config: EndpointConfig, key: str, store: Store, budget: Budget, *, offline: bool = False
    ) -> None:
        self.config, self.counts = config, collections.Counter[str]()
        self._store, self._budget, self._offline = store, budget, offline
        self._loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(min(config.concurrency, 32), thread_name_prefix="store")
        self._asking: dict[str, asyncio.Future[Reply]] = {}
        self._succeeded_at = time.monotonic()
        self._stop: Exception | None = None  # why no call can succeed
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm", daemon=True)
        self._thread.start()
        self.run(self._open(key)).result()

    async def _open(self, key: str) -> None:
        self._endpoint, self._rate_limits = Endpoint(self.config, key), RateLimits(self.config)
        self._flight = asyncio.Semaphore(self.config.concurrency)
        self._paying, self._settled = 0, asyncio.Event()  # calls with money set aside; one of them is done

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """End the loop. Calls in flight are dropped; finish them first."""
        self.run(self._endpoint.close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._threads.shutdown()
        self._budget.close()

    def run(self, work: Coroutine[Any, Any, Value]) -> "Future[Value]":
        """Run a coroutine on the client's loop; any thread may wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def reply(self, call: Call) -> Reply:
        """Return the reply to a call: the stored one, that of an equal call in flight, or the endpoint's.

        Raises:
          NoReply: the endpoint did not answer.
          Declined: it never will answer this call.
          BudgetReached: there is no money for it.
          UserError: no call can succeed.
        """
        if call.key in self._asking:
            return await asyncio.shield(self._asking[call.key])
        future = self._asking[call.key] = self._loop.create_future()
        try:
            reply = await self._find_or_ask(call)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # nobody else may be waiting for it
            raise
        finally:
            del self._asking[call.key]
        future.set_result(reply)
        return reply

    async def _find_or_ask(self, call: Call) -> Reply:
        found = await self._loop.run_in_executor(self._threads, self._store.get, call.key)
        if found is not None:
            self.counts["stored"] += 1
            return found
        if self._offline:
            raise NotStored("not stored")
        return await self._ask(call)

    async def _ask(self, call: Call) -> Reply:
        """Return the endpoint's reply, after as many attempts as it takes."""
        reason = ""
        for attempt in range(self.config.attempts):
            try:
                reply = await self._attempt(call)
            except Busy as busy:
                self.counts["failed"] += 1
                reason = str(busy)
                self._give_up_in_the_end(reason)
                await self._rate_limits.pause(attempt, busy.retry_after)
            except UserError as error:
                self._stop = error
                raise
            else:
                self._succeeded_at = time.monotonic()
                self.counts["asked"] += 1
                return reply
        raise NoReply(f"{reason}, after {self.config.attempts} attempts")

    async def _attempt(self, call: Call) -> Reply:
        """Return the endpoint's reply, paid for, and kept before it is handed out."""
        async with self._flight:
            await self._rate_limits.wait(call.prompt_tokens + call.max_tokens)
            if self._stop:
                raise self._stop
            bound, cost = await self._reserve(call), 0.0
            try:
                reply = await self._endpoint.complete(call)
                cost = self._budget.prices.of(reply)
            except Busy as busy:
                cost = bound if busy.lost else 0.0
                raise
            finally:
                self._settle(bound, cost)
        await self._loop.run_in_executor(self._threads, self._store.put, call.key, reply)
        return reply

    async def _reserve(self, call: Call) -> float:
        """Set aside what a call may cost, once there is as much: calls in flight give back what they did not need."""
        while True:
            try:
                bound = self._budget.reserve(call.body)
            except BudgetReached:
                if not self._paying:
                    raise
                await self._settled.wait()
            else:
                self._paying += 1
                return bound

    def _settle(self, bound: float, cost: float) -> None:
        self._budget.settle(bound, cost)
        self._paying -= 1
        self._settled.set()  # wakes all that wait
        self._settled.clear()

    def _give_up_in_the_end(self, reason: str) -> None:
        """Raise NoReply, for this call and all that follow, where nothing has been answered for too long."""
        silent = time.monotonic() - self._succeeded_at
        if silent > self.config.patience_seconds:
            self._stop = NoReply(f"{reason}; no call was answered for {silent:.0f} s")
            raise self._stop
