"""Answers to many prompts: batches of like lengths, decoded on the device until most of the batch has ended.

A batch is prefilled, then one compiled loop writes tokens until no more than a quarter of its rows is still going on;
those rows alone go on, in a batch of that size. So a sequence that has ended soon stops costing time. The cache begins
with room for few tokens and grows, for a step's cost grows with it. Shapes are few, as each is compiled: prompt lengths
are rounded up to powers of two, batch sizes and rooms are a factor of four apart.

What a prompt is padded to depends on the prompt alone, and its draws on its id alone: the rest of the batch does not
change its answer. No prompt is ever cut.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from coi_jax.config.run import BeamSearchConfig, EvaluationConfig, GreedyConfig, SamplingConfig
from coi_jax.inference import sampling
from coi_jax.inference.beam_search import BeamStrategy
from coi_jax.inference.decoding import SingleStrategy, Strategy
from coi_jax.models.kv_cache import EMPTY, allocate
from coi_jax.models.network import Network, Params
from coi_jax.parallel.sharding import whole

SHORTEST_BUCKET = 32  # tokens
FIRST_ROOM = 64  # new tokens that a cache has room for at first
FEW_ROWS = 8  # a batch of so many is not worth making smaller
FACTOR = 4  # between one batch size or room and the next
# A prefill's attention grows with the square of the prompt: a batch is full up to this length, then has fewer rows.
FULL_BATCH_LENGTH = 512


@dataclass(frozen=True)
class Prompt:
    """The ids that a network is shown; `id` keys what is drawn for it."""

    id: str
    tokens: Int[np.ndarray, " length"]


@dataclass(frozen=True)
class Answer:
    """The tokens written after prompt `index`, without the end-of-sequence token; not `complete` at the limit."""

    index: int
    tokens: list[int]
    complete: bool


def make_strategy(
    network: Network, eos_id: int, config: EvaluationConfig, other_ends: tuple[int, ...] = ()
) -> Strategy:
    """The way of decoding that a config names; `other_ends` end an answer as `eos_id` does."""
    match config.decoding:
        case BeamSearchConfig(beams=beams):
            return BeamStrategy(network, eos_id, config.max_new_tokens, beams, other_ends)
        case SamplingConfig(temperature=temperature, top_p=top_p):
            return SingleStrategy(network, eos_id, config.max_new_tokens, temperature, top_p, other_ends)
        case GreedyConfig():
            return SingleStrategy(network, eos_id, config.max_new_tokens, other_ends=other_ends)


def bucket(length: int) -> int:
    """What a prompt of some tokens is padded to: the next power of two."""
    return max(SHORTEST_BUCKET, 1 << (length - 1).bit_length())


def batch_sizes(batch: int, multiple: int = 1) -> list[int]:
    """The sizes that a batch may have, ascending, each a multiple. Example: `100` → `[7, 25, 100]`."""
    sizes = [_round_up(batch, multiple)]
    while sizes[-1] > max(FEW_ROWS, multiple):
        sizes.append(_round_up(-(-sizes[-1] // FACTOR), multiple))
    return sizes[::-1]


def _round_up(rows: int, multiple: int) -> int:
    return -(-rows // multiple) * multiple


def plan(lengths: Sequence[int], batch: int, multiple: int = 1) -> list[list[int]]:
    """Indices of prompts, batch by batch, longest first: each batch of one bucket, similar lengths together.

    A pure function of the lengths, so that an interrupted job makes the same batches again.
    """
    by_bucket: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        by_bucket.setdefault(bucket(lengths[index]), []).append(index)
    batches = []
    for length, indices in by_bucket.items():
        rows = rows_at(length, batch, multiple)
        batches += [indices[start : start + rows] for start in range(0, len(indices), rows)]
    return batches


def rows_at(length: int, batch: int, multiple: int = 1) -> int:
    """The rows of a batch whose prompts are padded to `length`; as many on each data-parallel device of a mesh."""
    return _round_up(max(1, min(batch, batch * FULL_BATCH_LENGTH**2 // length**2)), multiple)


@dataclass
class Generator:
    """Writes answers with one network and one way of decoding; compiled programs are kept between calls."""

    params: Params
    strategy: Strategy
    batch: int
    seed: int
    multiple: int = 1  # into how many parts the mesh divides a batch
    shapes: set[tuple[str, int, int, int]] = field(default_factory=set)  # compiled: program, prompt length, rows, room

    def __post_init__(self) -> None:
        self.params = self.strategy.network.for_decoding(self.params)

    def run(self, prompts: Sequence[Prompt], skip: frozenset[str] = frozenset()) -> Iterator[Answer]:
        """Yields the answer of every prompt as soon as it is known; those whose id is in `skip` are known already.

        A batch is written again as long as any of its answers is missing: the same batches give the same answers.
        """
        for indices in plan([len(prompt.tokens) for prompt in prompts], self.batch, self.multiple):
            if all(prompts[index].id in skip for index in indices):
                continue
            for answer in self._write_batch([prompts[index] for index in indices]):
                index = indices[answer.index]
                if prompts[index].id not in skip:
                    yield Answer(index, answer.tokens, answer.complete)

    def _write_batch(self, prompts: Sequence[Prompt]) -> Iterator[Answer]:
        length = bucket(max(len(prompt.tokens) for prompt in prompts))
        sizes = batch_sizes(rows_at(length, self.batch, self.multiple), self.multiple)
        size, room = _smallest(sizes, len(prompts)), min(FIRST_ROOM, self.strategy.limit)
        state = self._prefill(prompts, length, size, room)
        here = np.arange(size)  # which prompt each row belongs to
        going = here < len(prompts)  # the others are padding, or their answers are known
        while going.any():
            self.shapes.add(("decode", length, size, room))
            state = decode(self.strategy, self.params, state, _next_size(sizes, size), room)
            stopped = going & (np.asarray(state.ended) | (int(state.step) == self.strategy.limit))
            yield from self._answers(state, here, np.flatnonzero(stopped))
            going &= ~stopped
            remaining = int(going.sum())
            if remaining and _smallest(sizes, remaining) < size:
                size = _smallest(sizes, remaining)
                rows = np.resize(np.flatnonzero(going), size)
                here, going = here[rows], np.arange(size) < remaining
                state = _rows(self.strategy, state, rows, ~going)
            if remaining and int(state.step) == room:
                wider = min(FACTOR * room, self.strategy.limit)
                state, room = _grow(state, wider - room), wider

    def _prefill(self, prompts: Sequence[Prompt], length: int, size: int, room: int) -> Any:
        tokens = np.zeros((size, length), np.int32)
        lengths = np.ones(size, np.int32)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt.tokens)] = prompt.tokens
            lengths[row] = len(prompt.tokens)
        keys = sampling.row_keys(self.seed, [prompt.id for prompt in prompts] + [""] * (size - len(prompts)))
        self.shapes.add(("prefill", length, size, room))
        return prefill(self.strategy, self.params, tokens, lengths, keys, np.arange(size) >= len(prompts), room)

    def _answers(self, state: Any, here: Int[np.ndarray, " B"], rows: Int[np.ndarray, " N"]) -> Iterator[Answer]:
        """The answers of some rows."""
        written, ended = np.asarray(_answers(self.strategy, state)), np.asarray(state.ended)
        for row in rows:
            ends = np.flatnonzero(written[row] == self.strategy.eos_id)
            length = ends[0] if len(ends) else int(state.step)
            yield Answer(int(here[row]), written[row, :length].tolist(), bool(ended[row]))


def _smallest(sizes: Sequence[int], rows: int) -> int:
    return next(size for size in sizes if size >= rows)


def _next_size(sizes: Sequence[int], size: int) -> int:
    """How many rows may still be going on when a loop of `size` rows stops: as many as fit a smaller size."""
    return max((other for other in sizes if other < size), default=0)


@functools.partial(jax.jit, static_argnums=(0, 6))
def prefill(
    strategy: Strategy,
    params: Params,
    tokens: Int[Array, "B L"],
    lengths: Int[Array, " B"],
    keys: Key[Array, " B"],
    padding: Bool[Array, " B"],
    room: int,
) -> Any:
    """Reads prompts and chooses each row's first token; the strategy's state with room for `room` new tokens."""
    logits, cache = strategy.network.prefill(params, tokens, lengths, max_new_tokens=room)
    return _readable(strategy.begin(logits, cache, keys, padding))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def decode(strategy: Strategy, params: Params, state: Any, stop_at: Int[Array, ""], room: Int[Array, ""]) -> Any:
    """Goes on until at most `stop_at` rows have not ended, or `room` tokens are written."""

    def goes_on(state: Any) -> Bool[Array, ""]:
        return (jnp.sum(~state.ended) > stop_at) & (state.step < room)

    return _readable(strategy.network.decode_while(goes_on, strategy.advance, params, state))


@functools.partial(jax.jit, static_argnums=0)
def _rows(strategy: Strategy, state: Any, rows: Int[Array, " new"], padding: Bool[Array, " new"]) -> Any:
    state = strategy.rows(state, rows)
    return _readable(state._replace(ended=state.ended | padding))


def _readable(state: Any) -> Any:
    """The state with all that the host looks at on every device: a host sees its own alone."""
    return state._replace(step=whole(state.step), ended=whole(state.ended))


@functools.partial(jax.jit, static_argnums=1)
def _grow(state: Any, extra: int) -> Any:
    """Room for `extra` more tokens in the state's cache."""
    memory = allocate(state.cache.self_attention, extra)
    positions = jnp.pad(state.cache.positions, ((0, 0), (0, extra)), constant_values=EMPTY)
    return state._replace(cache=state.cache._replace(self_attention=memory, positions=positions))


@functools.partial(jax.jit, static_argnums=0)
def _answers(strategy: Strategy, state: Any) -> Int[Array, "B T"]:
    return whole(strategy.answers(state))
