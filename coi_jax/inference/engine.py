"""The compiled programs of continuous batching: rows that are empty, prompts that take rows, and a loop that decodes.

A batch has a fixed number of rows, each with room for the longest prompt and its answer. A prompt is read into a row
that is free, whatever the other rows do, and leaves it when its answer is complete.

Dimensions: B rows of the batch, P prompts that are read together, L padded length, T most new tokens.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt

from coi_jax.inference import sampling
from coi_jax.inference.decoding import Strategy, set_rows
from coi_jax.models.kv_cache import Cache, unstack_layers
from coi_jax.models.network import Params
from coi_jax.parallel.sharding import whole


class Progress(NamedTuple):
    """What the host reads after a loop, whole on every device: a host sees its own devices only."""

    active: Bool[Array, " B"]  # rows that go on
    ended: Bool[Array, " B"]  # rows whose answer came to its end
    written: Int[Array, "B T"]  # the answer of each row, up to the first end-of-sequence token
    steps: Int[Array, ""]  # that the loop has taken
    lengths: Int[Array, " B"]  # tokens written of each row
    finite: Bool[Array, " B"]  # rows whose logits were finite so far; the others have no answer
    details: Any  # what the way of decoding tells besides


@functools.partial(jax.jit, static_argnums=0)
def prepare(strategy: Strategy, params: Params) -> Params:
    """Return parameters in the form that is decoded with."""
    network = strategy.network
    params = network.cast_for_decoding(params)
    return network.unstack_layers(params) if network.unrolls_decoding else params


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def empty_rows(strategy: Strategy, rows: int, longest: int, prompts: int) -> tuple[Any, Cache | None]:
    """Return the state of rows that are all free, and the cache of prompts that `insert` keeps, empty.

    Args:
      strategy: the way of decoding.
      rows: of the batch.
      longest: tokens of the longest prompt, padding included.
      prompts: that are read together.
    """
    cache = _empty_cache(strategy, rows * strategy.beams, longest)
    state = strategy.empty_state(cache, sampling.row_keys(0, jnp.zeros(rows, jnp.uint32)))
    return state, _empty_cache(strategy, prompts, longest) if cache.serves_prefixes else None


def _empty_cache(strategy: Strategy, rows: int, longest: int) -> Cache:
    network = strategy.network
    cache = network.empty_cache(rows, prompt_length=longest, max_new_tokens=strategy.max_new_tokens)
    return unstack_layers(cache) if network.unrolls_decoding else cache


@functools.partial(jax.jit, static_argnums=(0, 9), donate_argnums=(2, 3))
def insert(
    strategy: Strategy,
    params: Params,
    state: Any,
    kept: Cache | None,
    read: Int[Array, ""],
    prompts: Int[Array, "P L"],
    lengths: Int[Array, " P"],
    rows: Int[Array, " P"],
    draws: UInt[Array, "P 2"],
    longest: int,
    options: Any = None,
) -> tuple[Any, Cache | None]:
    """Read prompts, choose the first token of each, and let them take rows; return the state, and the prompts' cache.

    Args:
      strategy: the way of decoding.
      params: of `prepare`.
      state: of all rows; donated.
      kept: the cache of the prompts that were read before, where it `serves_prefixes`; donated.
      read: how many tokens of all prompts `kept` has already; whole chunks, and fewer than any prompt has.
      prompts: right-padded.
      lengths: tokens of each prompt.
      rows: numbers of the rows that they take; a number that no row has is that of padding.
      draws: the seed, and what `sampling.id_hash` returns for the id of each.
      longest: tokens of the longest prompt that rows have room for, padding included.
      options: of each, where the way of decoding differs from row to row.
    """
    limit = strategy.max_new_tokens
    logits, cache = strategy.network.prefill(
        params, prompts, lengths, max_new_tokens=limit, longest=longest, kept=kept, read=read
    )
    new = strategy.init_state(logits, cache, sampling.row_keys(draws[:, 0], draws[:, 1]), options)
    return set_rows(state, rows, new, strategy.beams), None if kept is None else cache


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def decode(
    strategy: Strategy,
    params: Params,
    state: Any,
    max_active: Int[Array, ""],
    max_steps: Int[Array, ""] | None = None,
) -> tuple[Any, Progress]:
    """Write tokens until at most `max_active` rows go on; return the state, and what the host reads of it.

    Args:
      strategy: the way of decoding.
      params: of `prepare`.
      state: of all rows; donated.
      max_active: the number of rows that go on at which to stop.
      max_steps: the number of steps after which to stop in any case, if any.
    """

    def should_continue(carry: tuple[Any, Array]) -> Bool[Array, ""]:
        is_due: Array = jnp.sum(strategy.is_active(carry[0])) > max_active
        return is_due if max_steps is None else is_due & (carry[1] < max_steps)

    def advance(carry: tuple[Any, Array]) -> tuple[Any, Array]:
        return _rest(strategy, strategy.advance(params, carry[0])), carry[1] + 1

    state, steps = jax.lax.while_loop(should_continue, advance, (state, jnp.zeros((), jnp.int32)))
    told = Progress(
        strategy.is_active(state),
        state.ended,
        strategy.answers(state),
        steps,
        state.step,
        state.is_finite,
        strategy.details(state),
    )
    return state, jax.tree.map(whole, told)


@functools.partial(jax.jit, donate_argnums=0)
def release(state: Any, rows: Bool[Array, " B"]) -> Any:
    """End rows whose answers nobody waits for; return the state.

    Args:
      state: of all rows; donated.
      rows: True for those that end.
    """
    return state._replace(ended=state.ended | rows)


def _rest(strategy: Strategy, state: Any) -> Any:
    """Return the state in which rows that do not go on have no tokens in the cache, so that these cost no time."""
    active = jnp.repeat(strategy.is_active(state), strategy.beams)
    cache = state.cache
    return state._replace(cache=cache._replace(length=jnp.where(active, cache.length, 0)))
