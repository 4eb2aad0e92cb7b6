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

from coi_jax.config.run import BeamSearchConfig, EvaluationConfig, GreedyConfig, SamplingConfig
from coi_jax.inference import engine, sampling
from coi_jax.inference.beam_search import BeamStrategy
from coi_jax.inference.decoding import SingleStrategy, Strategy
from coi_jax.models.network import Network, Params

SHORTEST_PAD_LENGTH = 32  # tokens
SMALLEST_BATCH = 8  # rows; so many are not worth making fewer
GROWTH_FACTOR = 4  # between one number of rows and the next
FULL_BATCH_LENGTH = 512  # tokens of the longest prompt up to which a batch is full; its cache grows with them
SHORTEST_PROMPT = 4  # shorter prompts of an encoder are padded to this part of the longest one
REFILL = 8  # one of so many rows is free when prompts that wait take rows


@dataclass(frozen=True)
class Prompt:
    """The ids that a network is shown; `id` is the key of its random draws."""

    id: str
    tokens: Int[np.ndarray, " length"]


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


def pad_length(length: int) -> int:
    """Return the length that a prompt is padded to: the next power of two."""
    return max(SHORTEST_PAD_LENGTH, 1 << (length - 1).bit_length())


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

    def __post_init__(self) -> None:
        self.params = engine.prepare(self.strategy, self.params)

    def run(self, prompts: Sequence[Prompt], skip: frozenset[str] = frozenset()) -> Iterator[Answer]:
        """Yield the answer of every prompt; leave out those whose id is in `skip`.

        Their order depends on the prompts alone: an answer waits for those of longer prompts.
        """
        return itertools.chain.from_iterable(self.run_in_groups(prompts, skip))

    def run_in_groups(self, prompts: Sequence[Prompt], skip: frozenset[str] = frozenset()) -> Iterator[list[Answer]]:
        """Yield the answers of `run`, those together that are known at the same time."""
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
            yield from _Run(self, prompts, waiting, smallest_size(sizes, len(prompts)), longest).groups()

    def _order(self, prompts: Sequence[Prompt], skip: frozenset[str]) -> list[int]:
        """Return the indices of the prompts without an answer, longest first."""
        order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index].tokens), index))
        return [index for index in order if prompts[index].id not in skip]


@dataclass
class _Run:
    """The rows of one call: which prompt each holds, None for a free row."""

    generator: Generator
    prompts: Sequence[Prompt]
    waiting: deque[int]
    rows: int
    longest: int

    def __post_init__(self) -> None:
        self.holds: list[int | None] = [None] * self.rows
        self.state = engine.empty_rows(self.generator.strategy, self.rows, self.longest)
        self.generator.shapes |= {(program, self.rows, self.longest) for program in ("empty", "decode")}

    def groups(self) -> Iterator[list[Answer]]:
        """Yield answers, those together that are complete at the same time."""
        while self.waiting or self.busy:
            self._fill()
            strategy, params = self.generator.strategy, self.generator.params
            self.state, progress = engine.decode(strategy, params, self.state, self._enough())
            self.generator.steps += int(progress.steps)
            if answers := self._leave(*map(np.asarray, progress[:3])):
                yield answers

    @property
    def busy(self) -> int:
        """Return the number of rows that hold a prompt."""
        return sum(index is not None for index in self.holds)

    def _enough(self) -> np.int32:
        """Return the number of rows that go on at which the loop returns."""
        free = max(1, self.rows // REFILL) if self.waiting else max(1, self.busy // GROWTH_FACTOR)
        return np.int32(self.busy - min(free, self.busy))

    def _fill(self) -> None:
        """Let prompts that wait take the free rows."""
        free = [row for row, index in enumerate(self.holds) if index is None]
        together = self.generator.multiple
        while self.waiting and free:
            count = min(together, len(free), len(self.waiting))
            taken, free = free[:count], free[count:]
            indices = [self.waiting.popleft() for _ in taken]
            for row, index in zip(taken, indices, strict=True):
                self.holds[row] = index
            self._insert(taken, indices)

    def _insert(self, rows: list[int], indices: list[int]) -> None:
        prompts = [self.prompts[index] for index in indices]
        count, length = self.generator.multiple, self._width(prompts)
        tokens, lengths = np.zeros((count, length), np.int32), np.ones(count, np.int32)
        places, draws = np.full(count, self.rows, np.int32), np.zeros((count, 2), np.uint32)
        draws[:, 0] = self.generator.seed % 2**32
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            tokens[place, : len(prompt.tokens)] = prompt.tokens
            lengths[place], places[place] = len(prompt.tokens), row
            draws[place, 1] = sampling.id_hash(prompt.id)
        strategy, params = self.generator.strategy, self.generator.params
        self.state = engine.insert(strategy, params, self.state, tokens, lengths, places, draws, self.longest)
        self.generator.shapes.add((f"insert {length}", self.rows, self.longest))

    def _width(self, prompts: Sequence[Prompt]) -> int:
        """Return the length that prompts are padded to, one of few: an encoder reads all of it, a decoder in chunks."""
        if self.generator.strategy.network.config.kind == "decoder":
            return self.longest
        return max(pad_length(max(len(prompt.tokens) for prompt in prompts)), self.longest // SHORTEST_PROMPT)

    def _leave(
        self, active: Bool[np.ndarray, " B"], ended: Bool[np.ndarray, " B"], written: Int[np.ndarray, "B T"]
    ) -> list[Answer]:
        """Free the rows whose answers are complete; return these."""
        answers = []
        for row, index in enumerate(self.holds):
            if index is not None and not active[row]:
                answers.append(self._answer(index, written[row], bool(ended[row])))
                self.holds[row] = None
        return answers

    def _answer(self, index: int, written: Int[np.ndarray, " T"], ended: bool) -> Answer:
        ends = np.flatnonzero(written == self.generator.strategy.eos_id)
        return Answer(index, written[: ends[0] if len(ends) else None].tolist(), ended)
