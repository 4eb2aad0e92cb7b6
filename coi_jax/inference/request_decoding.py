"""Decoding for a server: every row has a temperature, a limit and an own beginning of its answer.

Dimensions: B batch, T most new tokens, V vocabulary, K likeliest tokens that are told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from coi_jax.inference import sampling
from coi_jax.inference.decoding import is_active, unify_eos
from coi_jax.models.kv_cache import Cache
from coi_jax.models.network import Network, Params

TOP_LOGPROBS = 5  # of the likeliest tokens that a request may ask for at each place
FREE = -1  # in place of a forced token: the model chooses


@dataclass(frozen=True)
class RequestOptions:
    """What one request asks of its answer.

    Attributes:
      max_new_tokens: the most tokens, those of `forced` included; at most the strategy's.
      temperature: divides the logits; 0 for greedy decoding.
      top_p: the probability mass of the nucleus that is drawn from.
      seed: of the draws.
      forced: the tokens that the answer begins with, as those of steps that are kept.
      logprobs: whether the log-probabilities of the tokens are told.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    forced: tuple[int, ...] = ()
    logprobs: bool = False


class RowOptions(NamedTuple):
    """`RequestOptions` of all rows, one entry per row."""

    limit: Int[Array, " B"]
    temperature: Float[Array, " B"]
    top_p: Float[Array, " B"]
    forced: Int[Array, "B T"]
    logprobs: Bool[Array, " B"]


class Logprobs(NamedTuple):
    """Natural logarithms of probabilities before temperature and nucleus, zero where they were not asked for."""

    chosen: Float[Array, "B T"]
    top: Float[Array, "B T K"]  # of the likeliest tokens, descending
    top_ids: Int[Array, "B T K"]


class RequestState(NamedTuple):
    """The state with one continuation per row."""

    step: Int[Array, " B"]
    ended: Bool[Array, " B"]
    is_finite: Bool[Array, " B"]
    tokens: Int[Array, "B T"]
    last: Int[Array, " B"]
    keys: Key[Array, " B"]
    options: RowOptions
    logprobs: Logprobs
    cache: Cache


@dataclass(frozen=True)
class RequestStrategy:
    """Greedy decoding and sampling in one program, as each row asks; a `Strategy`."""

    network: Network
    eos_id: int
    max_new_tokens: int
    other_eos_ids: tuple[int, ...] = ()
    beams: ClassVar[int] = 1

    def pack(self, asked: Sequence[RequestOptions], count: int) -> RowOptions:
        """Return the options of some requests, and those of padding up to `count`."""
        every = [*asked, *[RequestOptions(max_new_tokens=1)] * (count - len(asked))]
        forced = np.full((count, self.max_new_tokens), FREE, np.int32)
        for row, options in enumerate(every):
            forced[row, : len(options.forced)] = options.forced
        return RowOptions(
            jnp.asarray([options.max_new_tokens for options in every], jnp.int32),
            jnp.asarray([options.temperature for options in every], jnp.float32),
            jnp.asarray([options.top_p for options in every], jnp.float32),
            jnp.asarray(forced),
            jnp.asarray([options.logprobs for options in every], bool),
        )

    def empty_state(self, cache: Cache, keys: Key[Array, " B"]) -> RequestState:
        """See `Strategy.empty_state`."""
        shape = (len(keys), self.max_new_tokens)
        tokens = jnp.full(shape, self.eos_id, jnp.int32)
        top = jnp.zeros((*shape, min(TOP_LOGPROBS, self.network.vocabulary_size)))
        logprobs = Logprobs(jnp.zeros(shape), top, top.astype(jnp.int32))
        options, true, step = self.pack([], len(keys)), jnp.ones(len(keys), bool), jnp.zeros(len(keys), jnp.int32)
        return RequestState(step, true, true, tokens, tokens[:, 0], keys, options, logprobs, cache)

    def init_state(
        self, logits: Float[Array, "B V"], cache: Cache, keys: Key[Array, " B"], options: RowOptions
    ) -> RequestState:
        """See `Strategy.init_state`."""
        empty = self.empty_state(cache, keys)
        return self._append(logits, empty._replace(ended=jnp.zeros_like(empty.ended), options=options))

    def advance(self, params: Params, state: RequestState) -> RequestState:
        """Take one decode step of all rows, and choose the next token."""
        logits, cache = self.network.decode_step(params, state.cache, state.last)
        return self._append(logits, state._replace(cache=cache))

    def is_active(self, state: RequestState) -> Bool[Array, " B"]:
        """See `Strategy.is_active`."""
        return is_active(state, state.options.limit)

    def answers(self, state: RequestState) -> Int[Array, "B T"]:
        """Return the tokens written."""
        return state.tokens

    def details(self, state: RequestState) -> Logprobs:
        """Return the log-probabilities."""
        return state.logprobs

    def _append(self, logits: Float[Array, "B V"], state: RequestState) -> RequestState:
        active, rows = self.is_active(state), jnp.arange(len(state.step))
        place = jnp.where(active, state.step, self.max_new_tokens)  # a place beyond the end is left out
        forced = state.options.forced.at[rows, place].get(mode="fill", fill_value=FREE)
        free = unify_eos(self._choose(logits, state, active), self.eos_id, self.other_eos_ids)
        chosen = jnp.where(forced == FREE, free, forced)
        is_finite = state.is_finite & (~active | sampling.are_finite(logits))
        return state._replace(
            step=state.step + active,
            ended=state.ended | (active & (chosen == self.eos_id)) | ~is_finite,
            is_finite=is_finite,
            tokens=state.tokens.at[rows, place].set(chosen, mode="drop"),
            last=chosen,
            logprobs=self._tell(logits, chosen, place, active, state),
        )

    def _choose(self, logits: Float[Array, "B V"], state: RequestState, active: Bool[Array, " B"]) -> Int[Array, " B"]:
        """Return each row's own choice; nothing is drawn where no row samples."""
        samples = state.options.temperature > 0

        def draw() -> Int[Array, " B"]:
            keys = sampling.at_steps(state.keys, state.step)
            temperature = jnp.where(samples, state.options.temperature, 1.0)[:, None]
            drawn = sampling.sample(logits, keys, temperature, state.options.top_p[:, None])
            return jnp.where(samples, drawn, sampling.greedy(logits))

        chosen: Array = jax.lax.cond(jnp.any(samples & active), draw, lambda: sampling.greedy(logits))
        return chosen

    def _tell(
        self,
        logits: Float[Array, "B V"],
        chosen: Int[Array, " B"],
        place: Int[Array, " B"],
        active: Bool[Array, " B"],
        state: RequestState,
    ) -> Logprobs:
        """Return the log-probabilities with those of the tokens chosen now, where a row asks for them."""
        rows, old = jnp.arange(len(place)), state.logprobs

        def tell() -> Logprobs:
            logs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
            top, ids = jax.lax.top_k(logs, old.top.shape[-1])
            new = (logs[rows, chosen], top, ids.astype(jnp.int32))
            return Logprobs(*(leaf.at[rows, place].set(part, mode="drop") for leaf, part in zip(old, new, strict=True)))

        told: Logprobs = jax.lax.cond(jnp.any(state.options.logprobs & active), tell, lambda: old)
        return told
