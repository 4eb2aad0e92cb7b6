"""A Beam transform that asks a language model about every row, with many calls in flight at once.

The questions of a bundle are submitted as its rows come and answers are emitted as they arrive, so that the next
question never waits for the slowest. A bundle that Beam runs again finds the answers in the store of replies.
"""

import collections
import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from coi_jax.common import files
from coi_jax.llm import Answered, Client, Outcome, Rejected, Unanswered, ask
from coi_jax.llm.budget import Budget, Prices
from coi_jax.llm.reply_store import open_store
from coi_jax.llm.settings import EndpointConfig
from data_pipeline.build.asking import questions
from data_pipeline.build.asking.questions import Question
from data_pipeline.build.engine.stage_progress import PROGRESS
from data_pipeline.build.engine.stage_runner import DECLINED, REJECTED, TAGS, UNANSWERED, USAGE, Row

SUBMITTED_PER_CALL = 4  # questions that a bundle submits, for each call that may be in flight
Result = tuple[str, Row]  # a tag and a row


class StageUsage(NamedTuple):
    """The usage of a stage: calls and tokens, and the questions by what the replies to them were worth."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    questions: int = 0
    at_once: int = 0  # questions whose first reply could be used
    repaired: int = 0
    unusable: int = 0
    declined: int = 0  # by the endpoint


def usage_of(outcome: Answered[Any] | Rejected) -> StageUsage:
    """Return the usage of one question."""
    is_repaired = outcome.usage.calls > 1
    is_declined = isinstance(outcome, Rejected) and outcome.is_declined
    return StageUsage(
        *outcome.usage,
        questions=1,
        at_once=isinstance(outcome, Answered) and not is_repaired,
        repaired=isinstance(outcome, Answered) and is_repaired,
        unusable=isinstance(outcome, Rejected) and not is_declined,
        declined=is_declined,
    )


class Answerer(Protocol):
    """Answers questions: an endpoint or the oracle."""

    max_waiting: int  # questions that may be submitted before answers must be taken

    def submit(self, question: Question) -> "Future[Outcome[Any]]":
        """Submit a question."""

    def release(self) -> None:
        """Release what was set aside, when no question is waiting."""


class EndpointAnswerer:
    """A language model behind an endpoint."""

    def __init__(
        self,
        config: EndpointConfig,
        store: str,
        spending: str,
        dollars: float | None,
        offline: bool,
        declined: Mapping[str, str] | None = None,
    ) -> None:
        prices = Prices(config.prompt_price, config.completion_price)
        self._config, self.max_waiting = config, SUBMITTED_PER_CALL * config.concurrency
        self._budget = Budget(spending, dollars, prices, config.concurrency)
        key = "offline" if offline else config.key()
        self.client = Client(config, key, open_store(store), self._budget, offline=offline, declined=declined)

    def submit(self, question: Question) -> "Future[Outcome[Any]]":
        """Submit a question; the store of replies is looked at first."""
        return self.client.run(ask(self.client, questions.call(question, self._config), question.form))

    def release(self) -> None:
        """Give back the part of the budget that was leased and not spent."""
        self._budget.close()


_answerers: dict[str, Answerer] = {}
_making = threading.Lock()


def shared(key: Any, make: Callable[[], Answerer]) -> Answerer:
    """Return the one answerer of a key in this process: all bundles and threads share its limits."""
    with _making:
        name = files.digest(key)
        if name not in _answerers:
            _answerers[name] = make()
        return _answerers[name]


def failed_attempts() -> collections.Counter[str]:
    """Return how many attempts of this process got no reply, by reason; those of workers elsewhere are not known."""
    return sum((client.failures for client in _clients()), collections.Counter[str]())


def reply_counts() -> collections.Counter[str]:
    """Return how many replies this process had from the store ("stored"), and from the endpoint ("asked")."""
    return sum((client.counts for client in _clients()), collections.Counter[str]())


def _clients() -> Iterator[Client]:
    return (answerer.client for answerer in _answerers.values() if isinstance(answerer, EndpointAnswerer))


Done = queue.SimpleQueue[tuple[Row, "Future[Outcome[Any]]"]]


def _put(done: Done, row: Row, future: "Future[Outcome[Any]]") -> None:
    done.put((row, future))


class AskFn(beam.DoFn):
    """Asks a question about each row.

    Args:
      key: of the answerer, shared in a process.
      make: makes the answerer.
      question: about a row and the side inputs.
      take: returns the tagged rows that a row and its answer become; it gets answered questions only.
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
        """Take or make the answerer, once for each copy of this object."""
        self._answerer = shared(self._key, self._make)

    def start_bundle(self) -> None:
        """Begin with no question waiting."""
        self._done: Done = queue.SimpleQueue()
        self._waiting = 0

    def process(self, row: Row, *sides: Any) -> Iterator[Any]:
        """Submit the row's question, and emit what has been answered meanwhile."""
        future = self._answerer.submit(self._question(row, *sides))
        future.add_done_callback(functools.partial(_put, self._done, row))
        self._waiting += 1
        while self._waiting >= self._answerer.max_waiting or (self._waiting and not self._done.empty()):
            yield from self._next()

    def finish_bundle(self) -> Iterator[Any]:
        """Emit the remaining answers."""
        while self._waiting:
            for output in self._next():
                moment = GlobalWindow().max_timestamp()
                value = WindowedValue(output.value, moment, (GlobalWindow(),))
                yield beam.pvalue.TaggedOutput(output.tag, value)

    def teardown(self) -> None:
        """Release the answerer, once at the end."""
        self._answerer.release()

    def _next(self) -> Iterator[Any]:
        row, future = self._done.get()
        self._waiting -= 1
        PROGRESS.advance()
        outcome = future.result()
        if not isinstance(outcome, Unanswered):
            yield beam.pvalue.TaggedOutput(USAGE, tuple(map(int, usage_of(outcome))))
        for tag, result in self._results(row, outcome):
            yield beam.pvalue.TaggedOutput(tag, result)

    def _results(self, row: Row, outcome: Outcome[Any]) -> list[Result]:
        if isinstance(outcome, Unanswered):
            return [(UNANSWERED, {"reason": outcome.reason, "call": outcome.call})]
        if isinstance(outcome, Rejected):
            declined = {DECLINED: True} if outcome.is_declined else {}
            return [(REJECTED, {"reason": outcome.reason, "raw": list(outcome.raw), "row": row} | declined)]
        return self._take(row, outcome)


def ask_rows(rows: Any, fn: AskFn, *sides: Any) -> dict[str, Any]:
    """Return the flows of asking about rows, by tag, and one row with their usage.

    Args:
      rows: to ask about.
      fn: asks.
      sides: side inputs of the question.
    """
    flows = rows | beam.ParDo(fn, *sides).with_outputs(*TAGS, USAGE)
    usage = flows[USAGE] | "usage" >> beam.CombineGlobally(_sum) | beam.Map(lambda total: StageUsage(*total)._asdict())
    return {tag: flows[tag] for tag in TAGS} | {USAGE: usage}


def _sum(usages: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*usages, strict=True))) or tuple(StageUsage())
