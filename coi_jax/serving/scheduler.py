"""The thread that writes the answers to all requests of one model.

Requests wait in a queue, take rows that are free, and leave them as their answers end, are given up, or stop. Between a
few decode steps the thread looks for new requests and tells how far the answers are. An answer depends on nothing else
that is being answered.
"""

import collections
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import jax
import numpy as np

from coi_jax.inference.engine import Progress
from coi_jax.inference.generator import REFILL, Generator
from coi_jax.inference.model import Model
from coi_jax.inference.request_decoding import Logprobs, RequestOptions, RequestStrategy
from coi_jax.inference.rows import NOT_FINITE, Prompt, Rows

LOOK_SECONDS = 0.05  # about so long is decoded before the thread looks around: what a reader takes for fluent
MOST_STEPS = 32  # that are taken between two looks


@dataclass(frozen=True)
class Update:
    """How far an answer is.

    Attributes:
      tokens: all that are written, without the end-of-sequence token.
      finish: why it ended; None while it goes on.
      logprobs: of the tokens, where they were asked for.
      error: why it will never end, where the engine failed.
    """

    tokens: list[int]
    finish: Literal["stop", "length"] | None = None
    logprobs: Logprobs | None = None
    error: str | None = None


@dataclass(eq=False)
class Ticket:
    """A prompt that waits for its answer, or is being answered.

    Attributes:
      prompt: with its options.
      is_followed: whether updates are told before the last one.
      notify: what whoever delivers calls after an update.
      given_up: set by whoever no longer waits.
      latest: the newest update.
      arrived: when it was asked, in seconds of `time.monotonic`.
      first: when its first token was written.
    """

    prompt: Prompt
    is_followed: bool
    notify: Callable[[], None] = lambda: None
    given_up: bool = False
    latest: Update | None = None
    arrived: float = field(default_factory=time.monotonic)
    first: float | None = None


class Full(Exception):
    """The queue holds as many prompts as it may."""


class Scheduler:
    """Answers requests of one model, one thread for all of them.

    Args:
      model: that answers.
      slots: prompts that are answered at the same time.
      longest: tokens of the longest prompt.
      limit: tokens of the longest answer.
      most_waiting: prompts that may wait for a slot.
      deliver: is called from the thread with all tickets that have a new update.
    """

    def __init__(
        self,
        model: Model,
        *,
        slots: int,
        longest: int,
        limit: int,
        most_waiting: int,
        deliver: Callable[[Sequence[Ticket]], None],
    ) -> None:
        self._model, self._slots, self._deliver = model, slots, deliver
        self.longest, self.limit, self.most_waiting = longest, limit, most_waiting
        self._waiting: collections.deque[Ticket] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False
        self._steps = 1
        self.is_ready = False
        self.busy = 0  # rows that write
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"decode {model.run.path}", daemon=True)

    def start(self) -> None:
        """Load the parameters and compile the programs, in the thread."""
        self._thread.start()

    @property
    def steps_taken(self) -> int:
        """Return the number of decode steps of all rows."""
        return self._generator.steps

    @property
    def reused(self) -> int:
        """Return the number of tokens of prompts that were known from the prompts before."""
        return self._generator.reused if self.is_ready else 0

    @property
    def most(self) -> int:
        """Return the number of prompts that there may be at once."""
        return self._slots + self.most_waiting

    @property
    def waiting(self) -> int:
        """Return the number of prompts that wait for a slot."""
        return len(self._waiting)

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Let prompts wait for their answers.

        Raises:
          Full: too many wait already.
        """
        with self._changed:
            for ticket in [ticket for ticket in self._waiting if ticket.given_up]:
                self._waiting.remove(ticket)
            idle = self._slots - self.busy
            if len(self._waiting) + len(tickets) > self.most_waiting + max(idle, 0):
                raise Full
            self._waiting.extend(tickets)
            self._changed.notify()

    def close(self) -> None:
        """Wait until nothing waits and nothing is being answered, and end the thread; not where it still loads."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.is_ready:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            with self._model.on_mesh():
                rows = self._make_rows()
                self._warm_up(rows)
                self.is_ready = True
                while (taken := self._take(rows)) is not None:
                    rows = self._advance(rows, taken)
        except BaseException as error:
            self.failure = error
            self._fail(self._waiting)
        finally:
            self.is_ready = False

    def _fail(self, tickets: Iterable[Ticket]) -> None:
        """Tell tickets that they will never have an answer."""
        failed = list(tickets)
        for ticket in failed:
            ticket.latest = Update([], error="the engine failed; the server's log says why")
        self._deliver(failed)

    def _make_rows(self) -> Rows[Ticket]:
        self._generator: Generator = self._model.make_generator(
            lambda network, ends: RequestStrategy(network, ends[0], self.limit, ends[1:])
        )
        return Rows(self._generator, self._slots, self.longest)

    def _warm_up(self, rows: Rows[Ticket]) -> None:
        """Compile every program, so that no client waits for it."""
        for width in rows.widths:
            prompt = Prompt("warm-up", np.zeros(width, np.int32), RequestOptions(max_new_tokens=2))
            rows.put([(Ticket(prompt, False), prompt)])
            rows.decode(0, max_steps=2)
            rows.release([row for row, _ in rows.held()])

    def _take(self, rows: Rows[Ticket]) -> list[Ticket] | None:
        """Wait until there is something to do; return the prompts that take free rows, None where all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or rows.busy or self._closing)
            if not self._waiting and not rows.busy:
                return None
            taken: list[Ticket] = []
            while self._waiting and len(taken) < self._slots - rows.busy:
                ticket = self._waiting.popleft()
                taken += [] if ticket.given_up else [ticket]
            self.busy = rows.busy + len(taken)
        return taken

    def _advance(self, rows: Rows[Ticket], taken: Sequence[Ticket]) -> Rows[Ticket]:
        """Write some tokens and tell of them; return the rows, new ones where the engine failed."""
        try:
            left = list(taken)
            while left:
                some, left = left[: rows.room], left[rows.room :]
                rows.put([(ticket, ticket.prompt) for ticket in some])
            self._write(rows)
        except Exception:
            traceback.print_exc()
            self._fail({ticket for _, ticket in rows.held()} | set(taken))
            rows = Rows(self._generator, self._slots, self.longest)
        self.busy = rows.busy
        return rows

    def _write(self, rows: Rows[Ticket]) -> None:
        if gone := [row for row, ticket in rows.held() if ticket.given_up]:
            rows.release(gone)
        if not rows.busy:
            return
        started = time.perf_counter()
        # Where prompts wait, some rows that are free are worth a look before its time, as each look costs some.
        enough = rows.busy - max(1, rows.busy // REFILL) if self._waiting else 0
        progress: Progress = jax.block_until_ready(rows.decode(enough, max_steps=self._steps))
        per_step = (time.perf_counter() - started) / max(1, int(progress.steps))
        self._steps = max(1, min(MOST_STEPS, math.floor(LOOK_SECONDS / per_step)))
        self._tell(rows, progress)

    def _tell(self, rows: Rows[Ticket], progress: Progress) -> None:
        """Give every ticket its news, and free the rows of answers that have ended."""
        active, ended, written = (np.asarray(part) for part in progress[:3])
        lengths, finite, told, done = np.asarray(progress.lengths), np.asarray(progress.finite), [], []
        now = time.monotonic()
        for row, ticket in rows.held():
            ticket.first = ticket.first or now
            if not active[row]:
                done.append(row)
            elif not ticket.is_followed:
                continue
            if finite[row]:
                tokens = rows.cut(written[row][: lengths[row]])
                finish: Literal["stop", "length"] = "stop" if ended[row] else "length"
                logprobs = _logprobs_of(progress.details, row) if _wants_logprobs(ticket) else None
                ticket.latest = Update(tokens, None if active[row] else finish, logprobs)
            else:
                ticket.latest = Update([], error=NOT_FINITE)
            told.append(ticket)
        rows.free(done)
        if told:
            self._deliver(told)


def _wants_logprobs(ticket: Ticket) -> bool:
    return ticket.prompt.options is not None and ticket.prompt.options.logprobs


def _logprobs_of(details: Logprobs, row: int) -> Logprobs:
    """Return a copy of a row's log-probabilities, on the host."""
    taken: Logprobs = jax.tree.map(lambda leaf: np.array(leaf[row]), details)
    return taken
