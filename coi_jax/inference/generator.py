"""Generate answers to many prompts by continuous batching: an answer that is complete leaves its row to another prompt.

The longest prompts are first, so that no long answer is left over at the end. The compiled loop returns when enough
rows are free for others to be worth their while. Shapes are few, as each is compiled: the room of a row is that of the
longest prompt, rounded up to a power of two.

Rows are computed each by itself, and a prompt's draws depend on its id alone: what else is generated does not change
its answer. No prompt is ever truncated.
"""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int

from coi_jax.common.errors import UserError
from coi_jax.config.run import BeamSearchConfig, EvaluationConfig, GreedyConfig, SamplingConfig
from coi_jax.inference import engine
from coi_jax.inference.beam_search import BeamStrategy
from coi_jax.inference.decoding import SingleStrategy, Strategy
from coi_jax.inference.rows import NOT_FINITE, Prompt, Rows, pad_length
from coi_jax.models.network import Network, Params

SMALLEST_BATCH = 8  # rows; so many are not worth making fewer
GROWTH_FACTOR = 4  # between one number of rows and the next
FULL_BATCH_LENGTH = 512  # tokens of the longest prompt up to which a batch is full; its cache grows with them
REFILL = 8  # one of so many rows is free when prompts that wait take rows


@dataclass(frozen=True)
class Answer:
    """The tokens written after prompt `index`, without the end-of-sequence token; not `complete` at the limit."""

    index: int
    tokens: list[int]
    complete: bool


def make_strategy(
    network: Network, eos_id: int, config: EvaluationConfig, other_eos_ids: tuple[int, ...] = ()
) -> Strategy:
    """Return the way of decoding that a config names.

    Args:
      network: the network that computes the logits.
      eos_id: the token that ends an answer.
      config: how to decode, and the limit of new tokens.
      other_eos_ids: tokens that end an answer besides.
    """
    match config.decoding:
        case BeamSearchConfig(beams=beams, length_penalty=penalty, early_stopping=early):
            return BeamStrategy(network, eos_id, config.max_new_tokens, beams, other_eos_ids, penalty, early)
        case SamplingConfig(temperature=temperature, top_p=top_p):
            return SingleStrategy(network, eos_id, config.max_new_tokens, temperature, top_p, other_eos_ids)
        case GreedyConfig():
            return SingleStrategy(network, eos_id, config.max_new_tokens, other_eos_ids=other_eos_ids)


def batch_sizes(batch: int, multiple: int = 1) -> list[int]:
    """Return the sizes that a batch may have, ascending, each a multiple. Example: `100` → `[7, 25, 100]`."""
    sizes = [_round_up(batch, multiple)]
    while sizes[-1] > max(SMALLEST_BATCH, multiple):
        sizes.append(_round_up(-(-sizes[-1] // GROWTH_FACTOR), multiple))
    return sizes[::-1]


def batch_rows(length: int, batch: int, multiple: int = 1) -> int:
    """Return the most rows of a batch; fewer where prompts are long, so that its cache is as large as another's.

    Args:
      length: the padded length of the longest prompt.
      batch: rows of a batch of short prompts.
      multiple: the number of parts that the mesh divides a batch into.
    """
    return _round_up(max(1, min(batch, batch * FULL_BATCH_LENGTH // length)), multiple)


def smallest_size(sizes: Sequence[int], rows: int) -> int:
    """Return the smallest of ascending sizes that has so many rows, or else the last."""
    return next((size for size in sizes if size >= rows), sizes[-1])


def _round_up(rows: int, multiple: int) -> int:
    return -(-rows // multiple) * multiple


@dataclass
class Generator:
    """Generates answers with one network and one way of decoding; keeps compiled programs between calls."""

    params: Params
    strategy: Strategy
    batch: int
    seed: int
    multiple: int = 1  # into how many parts the mesh divides a batch
    longest: int = 1  # tokens that prompts are expected to have, of whatever call: so many have room in every row
    shapes: set[tuple[str, int, int]] = field(default_factory=set)  # compiled (program, rows, padded length)
    steps: int = 0  # decode steps of all rows that were taken
    reused: int = 0  # tokens of prompts that were known from the prompts before, as examples that all begin with are

    def __post_init__(self) -> None:
        self.params = engine.prepare(self.strategy, self.params)

    def run(self, prompts: Sequence[Prompt], skip: frozenset[str] = frozenset()) -> Iterator[Answer]:
        """Yield the answer of every prompt; leave out those whose id is in `skip`.

        Their order depends on the prompts alone: an answer waits for those of longer prompts.
        """
        return itertools.chain.from_iterable(self.run_in_groups(prompts, skip))

    def run_in_groups(self, prompts: Sequence[Prompt], skip: frozenset[str] = frozenset()) -> Iterator[list[Answer]]:
        """Yield the answers of `run`, those together that are known at the same time.

        Raises:
          UserError: the network's logits of a prompt are not finite.
        """
        due = self._order(prompts, skip)
        known: dict[int, Answer] = {}
        for group in self.run_unordered(prompts, skip):
            known |= {answer.index: answer for answer in group}
            first = list(itertools.takewhile(known.__contains__, due))
            due = due[len(first) :]
            if first:
                yield [known.pop(index) for index in first]

    def run_unordered(self, prompts: Sequence[Prompt], skip: frozenset[str] = frozenset()) -> Iterator[list[Answer]]:
        """Yield answers as soon as they are complete, those together that are complete at the same time.

        The programs are those of all prompts, so that answers are the same where some are there already.
        """
        waiting = deque(self._order(prompts, skip))
        if waiting:
            longest = pad_length(max(self.longest, *(len(prompt.tokens) for prompt in prompts)))
            sizes = batch_sizes(batch_rows(longest, self.batch, self.multiple), self.multiple)
            rows: Rows[int] = Rows(self, smallest_size(sizes, len(prompts)), longest)
            yield from _Run(prompts, waiting, rows).groups()

    def _order(self, prompts: Sequence[Prompt], skip: frozenset[str]) -> list[int]:
        """Return the indices of the prompts without an answer, longest first."""
        order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index].tokens), index))
        return [index for index in order if prompts[index].id not in skip]


@dataclass
class _Run:
    """One call: its prompts, those that wait for a free row, and the rows."""

    prompts: Sequence[Prompt]
    waiting: deque[int]
    rows: Rows[int]

    def groups(self) -> Iterator[list[Answer]]:
        """Yield answers, those together that are complete at the same time."""
        while self.waiting or self.rows.busy:
            self._fill()
            progress = self.rows.decode(self._enough())
            self._check(np.asarray(progress.finite))
            if answers := self._leave(*map(np.asarray, progress[:3])):
                yield answers

    def _enough(self) -> int:
        """Return the number of rows that go on at which the loop returns."""
        busy = self.rows.busy
        free = max(1, self.rows.count // REFILL) if self.waiting else max(1, busy // GROWTH_FACTOR)
        return busy - min(free, busy)

    def _fill(self) -> None:
        """Let prompts that wait take the free rows."""
        while self.waiting and self.rows.room:
            indices = [self.waiting.popleft() for _ in range(min(self.rows.room, len(self.waiting)))]
            self.rows.put([(index, self.prompts[index]) for index in indices])

    def _check(self, finite: Bool[np.ndarray, " B"]) -> None:
        """Raise UserError where the network cannot say what comes next."""
        for row, index in self.rows.held():
            if not finite[row]:
                raise UserError("prompt", self.prompts[index].id, NOT_FINITE)

    def _leave(
        self, active: Bool[np.ndarray, " B"], ended: Bool[np.ndarray, " B"], written: Int[np.ndarray, "B T"]
    ) -> list[Answer]:
        """Free the rows whose answers are complete; return these."""
        done = [(row, index) for row, index in self.rows.held() if not active[row]]
        self.rows.free([row for row, _ in done])
        return [Answer(index, self.rows.cut(written[row]), bool(ended[row])) for row, index in done]
