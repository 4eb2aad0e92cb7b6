"""The answers to one request while they are being written: the side of the event loop."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from coi_jax.inference.rows import Prompt
from coi_jax.serving.errors import ApiError
from coi_jax.serving.metrics import Metrics
from coi_jax.serving.scheduler import Full, Scheduler, Ticket, Update
from coi_jax.serving.text_stream import TextStream
from coi_jax.tokenizers.protocol import Vocabulary


@dataclass(eq=False)
class Choice:
    """One answer.

    Attributes:
      ticket: of its prompt.
      stream: its text.
      finish: why it ended; None while it goes on.
      told: tokens that a stream has told of.
    """

    ticket: Ticket
    stream: TextStream
    finish: str | None = None
    told: int = field(default=0)

    @property
    def update(self) -> Update:
        """Return the newest update."""
        return self.ticket.latest or Update([])

    @property
    def forced(self) -> int:
        """Return the number of tokens that the answer was given to begin with."""
        options = self.ticket.prompt.options
        return len(options.forced) if options else 0

    @property
    def written(self) -> int:
        """Return the number of tokens that the model wrote."""
        return max(0, self.stream.used - self.forced)

    def take(self) -> str:
        """Return what is new in the text, and note whether the answer has ended.

        Raises:
          ApiError: the engine failed.
        """
        update = self.update
        if update.error:
            raise ApiError(500, update.error)
        new = self.stream.grow(update.tokens, is_last=update.finish is not None)
        if self.stream.stopped:
            self.ticket.given_up = True
        self.finish = "stop" if self.stream.stopped else update.finish
        return new


class Answers:
    """The answers to the prompts of one request. Whoever no longer reads them calls `give_up`.

    Args:
      scheduler: of the model that is asked.
      vocabulary: of that model.
      prompts: one for each answer.
      stops: texts before which an answer ends.
      is_followed: whether answers are read before they have ended.
      seconds: after which the request is given up.
      metrics: of the server.

    Raises:
      ApiError: as many prompts wait already as may wait, the request has more than could ever wait, or the model is not
        there yet.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        vocabulary: Vocabulary,
        prompts: Sequence[Prompt],
        *,
        stops: tuple[str, ...],
        is_followed: bool,
        seconds: float,
        metrics: Metrics,
    ) -> None:
        self._changed, self._seconds, self._metrics = asyncio.Event(), seconds, metrics
        tickets = [Ticket(prompt, is_followed or bool(stops), self._changed.set) for prompt in prompts]
        self.choices = [Choice(ticket, TextStream(vocabulary, stops)) for ticket in tickets]
        if not scheduler.is_ready:
            raise ApiError(503, "the model is being loaded; ask again", code="loading", headers={"Retry-After": "5"})
        if len(tickets) > scheduler.most:
            hint = f"{len(tickets)} answers are more than this server takes at once, {scheduler.most}; ask in parts"
            raise ApiError(400, hint, "n", "invalid_value")
        try:
            scheduler.submit(tickets)
        except Full:
            wait = max(1, math.ceil(metrics.seconds_to_wait(scheduler.waiting)))
            hint = f"the queue has no room, {scheduler.waiting} waiting already; ask again in {wait} s"
            raise ApiError(429, hint, code="queue_full", headers={"Retry-After": str(wait)}) from None

    async def changes(self) -> AsyncGenerator[list[tuple[int, Choice, str]], None]:
        """Yield the answers that have come further, with their places and what is new in them, until all have ended.

        Raises:
          ApiError: the engine failed, or the answers took too long.
        """
        deadline = time.monotonic() + self._seconds
        going_on = list(enumerate(self.choices))
        try:
            while going_on:
                await self._wait(deadline)
                news = [(index, choice, choice.take()) for index, choice in going_on if choice.ticket.latest]
                going_on = [(index, choice) for index, choice in going_on if choice.finish is None]
                if found := [one for one in news if one[2] or one[1].finish]:
                    yield found
        finally:
            self.give_up()

    async def finished(self) -> list[Choice]:
        """Return the answers once all have ended."""
        async for _ in self.changes():
            pass
        return self.choices

    def give_up(self) -> None:
        """Let the rows of answers that are still being written serve others."""
        for choice in self.choices:
            if not choice.ticket.given_up and choice.finish is not None:
                self._metrics.observe(choice.ticket, choice.written)
            choice.ticket.given_up = True

    async def _wait(self, deadline: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._changed.wait()
        except TimeoutError:
            hint = f"the answer took longer than {self._seconds:g} s; ask for fewer tokens, or start the server with"
            raise ApiError(504, f"{hint} a longer --timeout", code="timeout") from None
        self._changed.clear()
