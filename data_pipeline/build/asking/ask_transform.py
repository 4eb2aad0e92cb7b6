"""Asks a question of every element of a flow, with many questions on their way at once.

A bundle's elements are sent off as they come; answers are handed on as they arrive, so that the next question never
waits for the slowest. A bundle that Beam runs again finds the answers in the store of replies.
"""

import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from coi_jax.common import files
from coi_jax.llm import Client, Outcome, Rejected, Unanswered, ask
from coi_jax.llm.budget import Budget, Prices
from coi_jax.llm.reply_store import open_store
from coi_jax.llm.settings import EndpointConfig
from coi_jax.llm.structured import Usage
from data_pipeline.build.asking import questions
from data_pipeline.build.asking.questions import Question
from data_pipeline.build.engine.stage_progress import METER
from data_pipeline.build.engine.stage_runner import REJECTED, TAGS, UNANSWERED, Row

USAGE = "usage"  # the kind of the row that tells what the replies of a stage took
WAITING = 4  # questions that a bundle has sent off, for each that may be in flight
Result = tuple[str, Row]  # a tag and a row


class Answerer(Protocol):
    """Who is asked."""

    waiting: int  # questions that may be sent off before answers must be taken

    def submit(self, question: Question) -> "Future[Outcome[Any]]":
        """Sends a question off."""

    def rest(self) -> None:
        """Called when no question is on its way."""


class EndpointAnswerer:
    """A language model behind an endpoint."""

    def __init__(self, config: EndpointConfig, store: str, spending: str, dollars: float | None, offline: bool) -> None:
        prices = Prices(config.prompt_price, config.completion_price)
        self._config, self.waiting = config, WAITING * config.concurrency
        self._budget = Budget(spending, dollars, prices, config.concurrency)
        key = "offline" if offline else config.key()
        self.client = Client(config, key, open_store(store), self._budget, offline=offline)

    def submit(self, question: Question) -> "Future[Outcome[Any]]":
        """See `Answerer`."""
        return self.client.run(ask(self.client, questions.call(question, self._config), question.form))

    def rest(self) -> None:
        """See `Answerer`: what was leased and not spent goes back."""
        self._budget.close()


_answerers: dict[str, Answerer] = {}
_making = threading.Lock()


def shared(key: Any, make: Callable[[], Answerer]) -> Answerer:
    """The one answerer of its key in this process: all bundles and threads share its limits."""
    with _making:
        name = files.digest(key)
        if name not in _answerers:
            _answerers[name] = make()
        return _answerers[name]


Done = queue.SimpleQueue[tuple[Row, "Future[Outcome[Any]]"]]


def _put(done: Done, row: Row, future: "Future[Outcome[Any]]") -> None:
    done.put((row, future))


class Ask(beam.DoFn):
    """Asks about rows.

    Args:
      key: names the answerer.
      make: makes it.
      question: of a row.
      take: what a row and its answer become: tagged rows. It gets answered questions alone.
    """

    def __init__(
        self,
        key: Any,
        make: Callable[[], Answerer],
        question: Callable[..., Question],
        take: Callable[..., list[Result]],
    ) -> None:
        self._key, self._make, self._question, self._take = key, make, question, take

    def setup(self) -> None:
        """Once for each copy of this object."""
        self._answerer = shared(self._key, self._make)

    def start_bundle(self) -> None:
        """No question is on its way."""
        self._done: Done = queue.SimpleQueue()
        self._waiting = 0

    def process(self, row: Row, *sides: Any) -> Iterator[Any]:
        """Sends off the row's question, and hands on what has been answered meanwhile."""
        self._sides = sides
        future = self._answerer.submit(self._question(row, *sides))
        future.add_done_callback(functools.partial(_put, self._done, row))
        self._waiting += 1
        while self._waiting >= self._answerer.waiting or (self._waiting and not self._done.empty()):
            yield from self._next()

    def finish_bundle(self) -> Iterator[Any]:
        """Hands on the rest."""
        while self._waiting:
            for output in self._next():
                moment = GlobalWindow().max_timestamp()
                value = WindowedValue(output.value, moment, (GlobalWindow(),))
                yield beam.pvalue.TaggedOutput(output.tag, value)

    def teardown(self) -> None:
        """Once, at the end."""
        self._answerer.rest()

    def _next(self) -> Iterator[beam.pvalue.TaggedOutput]:
        row, future = self._done.get()
        self._waiting -= 1
        METER.advance()
        outcome = future.result()
        if not isinstance(outcome, Unanswered):
            yield beam.pvalue.TaggedOutput(USAGE, tuple(outcome.usage))
        for tag, result in self._results(row, outcome):
            yield beam.pvalue.TaggedOutput(tag, result)

    def _results(self, row: Row, outcome: Outcome[Any]) -> list[Result]:
        if isinstance(outcome, Unanswered):
            return [(UNANSWERED, {"reason": outcome.reason, "call": outcome.call})]
        if isinstance(outcome, Rejected):
            return [(REJECTED, {"reason": outcome.reason, "raw": list(outcome.raw), "row": row})]
        return self._take(row, outcome, *self._sides)


def asked(flow: Any, ask: Ask, *sides: Any) -> dict[str, Any]:
    """The flows of an `Ask`, by tag; of what the replies took one row."""
    flows = flow | beam.ParDo(ask, *sides).with_outputs(*TAGS, USAGE)
    usage = flows[USAGE] | "usage" >> beam.CombineGlobally(_sum) | beam.Map(lambda total: Usage(*total)._asdict())
    return {tag: flows[tag] for tag in TAGS} | {USAGE: usage}


def _sum(usages: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*usages, strict=True))) or tuple(Usage())
