"""Calls in flight: many at once, on an event loop of their own, each answered from the store where it can be."""

import asyncio
import collections
import sys
import threading
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from coi_jax.common.errors import UserError
from coi_jax.llm.budget import Budget, BudgetReached
from coi_jax.llm.calls import Call, Reply
from coi_jax.llm.endpoint import Endpoint
from coi_jax.llm.failures import LONGEST_WAIT, Busy, Declined, TimedOut, declines_all
from coi_jax.llm.flight import Flight
from coi_jax.llm.rate_limits import RateLimits
from coi_jax.llm.reply_store import Store
from coi_jax.llm.settings import EndpointConfig

Value = TypeVar("Value")
NOT_STORED = "not stored"  # why an offline client has no reply
DECLINED_AT_FIRST = 100  # calls after which an endpoint that has answered none is asked no more
UNUSABLE_AT_FIRST = 50  # questions after which a model of which no reply could be used is asked no more


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
      declined: why calls, by their keys, were declined in a batch: they are not asked for again.

    Attributes:
      counts: how many calls were answered from the store ("stored"), were answered by the endpoint ("asked"), were
        declined by it ("declined"), and how many attempts failed ("failed"); how many questions got a usable reply
        ("usable") and how many replies that could not be used ("unusable").
      failures: how many attempts got no reply, by reason.
    """

    def __init__(
        self,
        config: EndpointConfig,
        key: str,
        store: Store,
        budget: Budget,
        *,
        offline: bool = False,
        declined: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self.counts = config, collections.Counter[str]()
        self.failures = collections.Counter[str]()
        self._store, self._budget, self._offline, self._declined = store, budget, offline, declined or {}
        self._loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(min(config.concurrency, 32), thread_name_prefix="store")
        self._asking: dict[str, asyncio.Future[Reply]] = {}
        self._succeeded_at = time.monotonic()
        self._stop: Exception | None = None  # why no call can succeed
        self._said_impatient = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm", daemon=True)
        self._thread.start()
        self.run(self._open(key)).result()

    async def _open(self, key: str) -> None:
        self._endpoint, self._rate_limits = Endpoint(self.config, key), RateLimits(self.config)
        self._flight = Flight(self.config.concurrency)
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
          Declined: it will not answer this call as it is.
          BudgetReached: there is no money for it.
          UserError: no call can succeed.
        """
        if call.key in self._asking:
            return await asyncio.shield(self._asking[call.key])
        if not self._asking:  # the endpoint was not silent while it was not asked
            self._succeeded_at = time.monotonic()
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
        found = await self._find(call)
        if found is not None:
            return found
        if call.key in self._declined:
            raise Declined(self._declined[call.key])
        if self._offline:
            raise NotStored(NOT_STORED)
        return await self._ask(call)

    async def _find(self, call: Call) -> Reply | None:
        """Return the stored reply to a call, if there is one."""
        found = await self._loop.run_in_executor(self._threads, self._store.get, call.key)
        self.counts["stored"] += found is not None
        return found

    async def _ask(self, call: Call) -> Reply:
        """Return the endpoint's reply, after as many attempts as it takes; another process may store it meanwhile."""
        reason = ""
        for attempt in range(self.config.attempts):
            if attempt and (found := await self._find(call)) is not None:
                return found
            try:
                return await self._attempt(call)
            except Busy as busy:
                self.counts["failed"] += 1
                reason = str(busy)
                self.failures[reason] += 1
                self._give_up_in_the_end(reason)
                await self._rate_limits.pause(attempt, self._patient_wait(busy))
            except Declined as declined:
                self._count_declined(str(declined))
                raise
            except UserError as error:
                self._stop = error
                raise
        raise NoReply(f"{reason}, after {self.config.attempts} attempts")

    async def _attempt(self, call: Call) -> Reply:
        """Return the endpoint's reply, paid for, and kept before it is handed out."""
        async with self._flight.call():
            await self._rate_limits.wait(call.prompt_tokens + call.max_tokens)
            if self._stop:
                raise self._stop
            cost = bound = await self._reserve(call)  # which is what it counts with where its reply is lost
            started = time.monotonic()
            try:
                reply = await self._endpoint.complete(call)
                cost = bound if reply.is_estimate else self._budget.prices.of(reply)
            except Busy as busy:
                cost = bound if busy.lost else 0.0
                if isinstance(busy, TimedOut):
                    self._flight.timed_out(started, self.config.timeout_seconds)
                raise
            except (Declined, UserError):
                cost = 0.0
                raise
            finally:
                self._settle(bound, cost)
        await self._loop.run_in_executor(self._threads, self._store.put, call.key, reply)
        self._succeeded_at = time.monotonic()
        self._flight.answered()
        self.counts["asked"] += 1
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

    def _count_declined(self, reason: str) -> None:
        """Let no call follow where the endpoint has declined many and answered none."""
        self.counts["declined"] += 1
        declined, answered = self.counts["declined"], self.counts["asked"] + self.counts["stored"]
        if declined >= DECLINED_AT_FIRST and not answered and self.config.declined_share < 1:
            self._stop = declines_all(reason, declined, declined)

    def count_unusable(self, reason: str) -> None:
        """Let no call follow where many questions got replies that cannot be used, and none a usable one."""
        self.counts["unusable"] += 1
        unusable = self.counts["unusable"]
        if unusable >= UNUSABLE_AT_FIRST and not self.counts["usable"] and self.config.declined_share < 1:
            why = f"none of its replies to {unusable:,} questions could be used, the last one was {reason}"
            hint = f"{why}; choose another model or structured, or set declined_share to 1"
            self._stop = UserError("endpoint.model", self.config.model, hint)

    def _patient_wait(self, busy: Busy) -> float:
        """Return the seconds to wait before the next attempt: no more than patience lasts, which is said once."""
        left = max(self.config.patience_seconds - (time.monotonic() - self._succeeded_at), 0.0)
        if busy.retry_after > left and not self._said_impatient:
            self._said_impatient = True
            more = " or more" if busy.retry_after == LONGEST_WAIT else ""
            wish = f"note: the endpoint asks to wait {busy.retry_after:,.0f} s{more} ({busy})"
            line = f"{wish}; it is asked again in {left:,.0f} s, as endpoint.patience_seconds says"
            print(line, file=sys.stderr, flush=True)
        return min(busy.retry_after, left)

    def _give_up_in_the_end(self, reason: str) -> None:
        """Raise NoReply, for this call and all that follow, where nothing has been answered for too long."""
        silent = time.monotonic() - self._succeeded_at
        if silent > self.config.patience_seconds:
            self._stop = NoReply(f"{reason}; no call was answered for {silent:.0f} s")
            raise self._stop
