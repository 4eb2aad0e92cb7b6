"""Generate answers to many prompts, in batches of similar lengths that shrink as answers end.

A batch is prefilled, then one compiled loop writes tokens until no more than a quarter of its rows is still active;
only those go on, in a batch of that size. So a sequence that has ended soon stops costing time. The cache begins
with a capacity of few tokens and grows, because the cost of a step grows with it. Shapes are few, as each is
compiled: prompt lengths are rounded up to powers of two, batch sizes and capacities differ by a factor of four.

The padded length of a prompt depends on the prompt alone, and its draws on its id alone: the rest of the batch does
not change its answer. No prompt is ever truncated.
"""

import functools
import itertools
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

SHORTEST_PAD_LENGTH = 32  # tokens
FIRST_CAPACITY = 64  # new tokens that a cache has room for at first
SMALLEST_BATCH = 8  # a batch of so many is not worth making smaller
GROWTH_FACTOR = 4  # between one batch size or capacity and the next
# A prefill's attention grows with the square of the prompt: a batch is full up to this length, then has fewer rows.
FULL_BATCH_LENGTH = 512


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


def _round_up(rows: int, multiple: int) -> int:
    return -(-rows // multiple) * multiple


def plan_batches(lengths: Sequence[int], batch: int, multiple: int = 1) -> list[list[int]]:
    """Return the indices of prompts, batch by batch, longest first, with one padded length per batch.

    A pure function of the lengths, so that an interrupted job makes the same batches again.

    Args:
      lengths: tokens of each prompt.
      batch: rows of a batch of short prompts.
      multiple: the number of parts that the mesh divides a batch into.
    """
    by_pad_length: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        by_pad_length.setdefault(pad_length(lengths[index]), []).append(index)
    batches = []
    for length, indices in by_pad_length.items():
        rows = batch_rows(length, batch, multiple)
        batches += [indices[start : start + rows] for start in range(0, len(indices), rows)]
    return batches


def batch_rows(length: int, batch: int, multiple: int = 1) -> int:
    """Return the rows of a batch; fewer where prompts are long, since attention in prefill grows with their square.

    Args:
      length: the padded length of the prompts.
      batch: rows of a batch of short prompts.
      multiple: the number of parts that the mesh divides a batch into.
    """
    return _round_up(max(1, min(batch, batch * FULL_BATCH_LENGTH**2 // length**2)), multiple)


@dataclass
class Generator:
    """Generates answers with one network and one way of decoding; keeps compiled programs between calls."""

    params: Params
    strategy: Strategy
    batch: int
    seed: int
    multiple: int = 1  # into how many parts the mesh divides a batch
    shapes: set[tuple[str, int, int, int]] = field(default_factory=set)  # compiled (program, length, rows, capacity)

    def __post_init__(self) -> None:
        self.params = self.strategy.network.cast_for_decoding(self.params)

    def run(self, prompts: Sequence[Prompt], skip: frozenset[str] = frozenset()) -> Iterator[Answer]:
        """Yield the answer of every prompt as soon as it is complete; leave out those whose id is in `skip`."""
        return itertools.chain.from_iterable(self.run_in_groups(prompts, skip))

    def run_in_groups(self, prompts: Sequence[Prompt], skip: frozenset[str] = frozenset()) -> Iterator[list[Answer]]:
        """Yield the answers of `run`, those together that are complete at the same time.

        A batch is generated again as long as any of its answers is missing: the same batches give the same answers.
        """
        for indices in plan_batches([len(prompt.tokens) for prompt in prompts], self.batch, self.multiple):
            if all(prompts[index].id in skip for index in indices):
                continue
            for group in self._write_batch([prompts[index] for index in indices]):
                answers = [Answer(indices[answer.index], answer.tokens, answer.complete) for answer in group]
                yield [answer for answer in answers if prompts[answer.index].id not in skip]

    def _write_batch(self, prompts: Sequence[Prompt]) -> Iterator[list[Answer]]:
        length = pad_length(max(len(prompt.tokens) for prompt in prompts))
        sizes = batch_sizes(batch_rows(length, self.batch, self.multiple), self.multiple)
        size, capacity = _smallest_size(sizes, len(prompts)), min(FIRST_CAPACITY, self.strategy.max_new_tokens)
        state = self._prefill(prompts, length, size, capacity)
        row_to_prompt = np.arange(size)  # which prompt each row belongs to
        active = row_to_prompt < len(prompts)  # the others are padding, or their answers are known
        while active.any():
            self.shapes.add(("decode", length, size, capacity))
            state = decode(self.strategy, self.params, state, _next_size(sizes, size), capacity)
            stopped = active & (np.asarray(state.ended) | (int(state.step) == self.strategy.max_new_tokens))
            yield self._answers(state, row_to_prompt, np.flatnonzero(stopped))
            active &= ~stopped
            still_active = int(active.sum())
            if still_active and _smallest_size(sizes, still_active) < size:
                size = _smallest_size(sizes, still_active)
                rows = np.resize(np.flatnonzero(active), size)
                row_to_prompt, active = row_to_prompt[rows], np.arange(size) < still_active
                state = _select_rows(self.strategy, state, rows, ~active)
            if still_active and int(state.step) == capacity:
                wider = min(GROWTH_FACTOR * capacity, self.strategy.max_new_tokens)
                state, capacity = _grow(state, wider - capacity), wider

    def _prefill(self, prompts: Sequence[Prompt], length: int, size: int, capacity: int) -> Any:
        tokens = np.zeros((size, length), np.int32)
        lengths = np.ones(size, np.int32)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt.tokens)] = prompt.tokens
            lengths[row] = len(prompt.tokens)
        keys = sampling.row_keys(self.seed, [prompt.id for prompt in prompts] + [""] * (size - len(prompts)))
        self.shapes.add(("prefill", length, size, capacity))
        return prefill(self.strategy, self.params, tokens, lengths, keys, np.arange(size) >= len(prompts), capacity)

    def _answers(self, state: Any, row_to_prompt: Int[np.ndarray, " B"], rows: Int[np.ndarray, " N"]) -> list[Answer]:
        """Return the answers of some rows."""
        written, ended = np.asarray(_answers(self.strategy, state)), np.asarray(state.ended)
        found: list[Answer] = []
        for row in rows:
            ends = np.flatnonzero(written[row] == self.strategy.eos_id)
            length = ends[0] if len(ends) else int(state.step)
            found.append(Answer(int(row_to_prompt[row]), written[row, :length].tolist(), bool(ended[row])))
        return found


def _smallest_size(sizes: Sequence[int], rows: int) -> int:
    return next(size for size in sizes if size >= rows)


def _next_size(sizes: Sequence[int], size: int) -> int:
    """Return the number of active rows at which a loop of `size` rows stops: as many as fit a smaller size."""
    return max((other for other in sizes if other < size), default=0)


@functools.partial(jax.jit, static_argnums=(0, 6))
def prefill(
    strategy: Strategy,
    params: Params,
    tokens: Int[Array, "B L"],
    lengths: Int[Array, " B"],
    keys: Key[Array, " B"],
    padding: Bool[Array, " B"],
    capacity: int,
) -> Any:
    """Read prompts and choose each row's first token; return the state of the strategy.

    Args:
      strategy: the way of decoding.
      params: the parameters, in the dtype of decoding.
      tokens: right-padded prompts.
      lengths: tokens of each prompt.
      keys: the key of each row's draws.
      padding: rows without a prompt.
      capacity: new tokens that the cache has room for.
    """
    logits, cache = strategy.network.prefill(params, tokens, lengths, max_new_tokens=capacity)
    return _readable(strategy.init_state(logits, cache, keys, padding))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def decode(strategy: Strategy, params: Params, state: Any, max_active: Int[Array, ""], capacity: Int[Array, ""]) -> Any:
    """Generate until at most `max_active` rows have not ended, or `capacity` tokens are written.

    Args:
      strategy: the way of decoding.
      params: the parameters, in the dtype of decoding.
      state: the state of the strategy; donated.
      max_active: the number of active rows at which to stop.
      capacity: new tokens that the cache has room for.
    """

    def should_continue(state: Any) -> Bool[Array, ""]:
        is_due: Array = (jnp.sum(~state.ended) > max_active) & (state.step < capacity)
        return is_due

    return _readable(strategy.network.decode_while(should_continue, strategy.advance, params, state))


@functools.partial(jax.jit, static_argnums=0)
def _select_rows(strategy: Strategy, state: Any, rows: Int[Array, " new"], padding: Bool[Array, " new"]) -> Any:
    state = strategy.select_rows(state, rows)
    return _readable(state._replace(ended=state.ended | padding))


def _readable(state: Any) -> Any:
    """Return the state with what the host reads replicated on every device: a host sees its own devices only."""
    return state._replace(step=whole(state.step), ended=whole(state.ended))


@functools.partial(jax.jit, static_argnums=1)
def _grow(state: Any, extra: int) -> Any:
    """Return the state with capacity for `extra` more tokens in its cache."""
    memory = allocate(state.cache.self_attention, extra)
    positions = jnp.pad(state.cache.positions, ((0, 0), (0, extra)), constant_values=EMPTY)
    return state._replace(cache=state.cache._replace(self_attention=memory, positions=positions))


@functools.partial(jax.jit, static_argnums=0)
def _answers(strategy: Strategy, state: Any) -> Int[Array, "B T"]:
    return whole(strategy.answers(state))
