"""Decoding one token at a time: the state of a batch that is being generated, and how a step changes it.

Rows begin and end on their own: each has a step of its own. A strategy is static and hashable; its methods are pure
functions of arrays, so a whole decoding loop is one compiled program. `SingleStrategy` keeps one continuation per row
(greedy, sampling); `beam_search` keeps several.

Dimensions: B batch, T most new tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from coi_jax.inference import sampling
from coi_jax.models import kv_cache
from coi_jax.models.kv_cache import Cache
from coi_jax.models.network import Network, Params


@runtime_checkable
class Strategy(Protocol):
    """A way of decoding.

    Its state is a named tuple of arrays, one entry per row, with at least `step` (tokens written), `ended` (whether the
    answer is complete), `is_finite` (whether all logits were) and `cache`. Rows that have ended or reached the limit
    stay as they are; a row whose logits are not finite ends.
    """

    @property
    def network(self) -> Network:
        """Return the network that computes the logits."""

    @property
    def eos_id(self) -> int:
        """Return the token that ends an answer."""

    @property
    def max_new_tokens(self) -> int:
        """Return the limit of new tokens per row."""

    @property
    def beams(self) -> int:
        """Return the number of rows that the cache has for a row of the state."""

    def empty_state(self, cache: Cache, keys: Key[Array, " B"]) -> Any:
        """Return the state of rows without a prompt.

        Args:
          cache: of rows without tokens.
          keys: any.
        """

    def init_state(self, logits: Float[Array, "B V"], cache: Cache, keys: Key[Array, " B"], options: Any) -> Any:
        """Return the state after the first new token.

        Args:
          logits: the logits of each row's first new token.
          cache: the cache of the prompts.
          keys: the key of each row's draws.
          options: of each row; None where all rows are decoded alike.
        """

    def is_active(self, state: Any) -> Bool[Array, " B"]:
        """Return the rows that go on: they have neither ended nor reached their limit of new tokens."""

    def advance(self, params: Params, state: Any) -> Any:
        """Return the state after one more token."""

    def answers(self, state: Any) -> Int[Array, "B T"]:
        """Return the tokens of each row's answer, up to the first end-of-sequence token."""

    def details(self, state: Any) -> Any:
        """Return what is told of each row besides its answer, as arrays; None for nothing."""


def unify_eos(tokens: Int[Array, "*shape"], eos_id: int, other_eos_ids: tuple[int, ...]) -> Int[Array, "*shape"]:
    """Return tokens with `eos_id` in place of every other end-of-sequence token: published models may have several.

    Args:
      tokens: token ids of any shape.
      eos_id: the id that stands for all ends.
      other_eos_ids: the ids that end an answer besides.
    """
    return jnp.where(jnp.isin(tokens, jnp.array(other_eos_ids)), eos_id, tokens) if other_eos_ids else tokens


def is_active(state: Any, limit: int | Int[Array, " B"]) -> Bool[Array, " B"]:
    """Return the rows that go on: they have neither ended nor reached the limit of new tokens."""
    going_on: Array = ~state.ended & (state.step < limit)
    return going_on


def set_rows(state: Any, rows: Int[Array, " new"], new: Any, beams: int) -> Any:
    """Return the state with some rows replaced.

    Args:
      state: of all rows.
      rows: numbers of the rows that are replaced; a number that no row has is left out.
      new: the new state of these rows.
      beams: rows of the cache for one of the state.
    """
    in_cache = (rows[:, None] * beams + jnp.arange(beams)[None]).reshape(-1)
    small, parts = (given._replace(cache=None) for given in (state, new))
    placed = jax.tree.map(lambda leaf, part: leaf.at[rows].set(part, mode="drop"), small, parts)
    return placed._replace(cache=kv_cache.set_rows(state.cache, in_cache, new.cache))


class SingleState(NamedTuple):
    """The state with one continuation per row."""

    step: Int[Array, " B"]
    ended: Bool[Array, " B"]
    is_finite: Bool[Array, " B"]
    tokens: Int[Array, "B T"]
    last: Int[Array, " B"]
    keys: Key[Array, " B"]
    cache: Cache


@dataclass(frozen=True)
class SingleStrategy:
    """Greedy decoding, or with a `temperature` sampling from a nucleus of `top_p`."""

    network: Network
    eos_id: int
    max_new_tokens: int
    temperature: float | None = None
    top_p: float = 1.0
    other_eos_ids: tuple[int, ...] = ()
    beams: ClassVar[int] = 1

    def empty_state(self, cache: Cache, keys: Key[Array, " B"]) -> SingleState:
        """See `Strategy.empty_state`."""
        tokens = jnp.full((len(keys), self.max_new_tokens), self.eos_id, jnp.int32)
        step, true = jnp.zeros(len(keys), jnp.int32), jnp.ones(len(keys), bool)
        return SingleState(step, true, true, tokens, tokens[:, 0], keys, cache)

    def init_state(
        self, logits: Float[Array, "B V"], cache: Cache, keys: Key[Array, " B"], options: None = None
    ) -> SingleState:
        """See `Strategy.init_state`."""
        empty = self.empty_state(cache, keys)
        return self._append(logits, empty._replace(ended=jnp.zeros_like(empty.ended)))

    def advance(self, params: Params, state: SingleState) -> SingleState:
        """Take one decode step of all rows, and choose the next token."""
        logits, cache = self.network.decode_step(params, state.cache, state.last)
        return self._append(logits, state._replace(cache=cache))

    def is_active(self, state: SingleState) -> Bool[Array, " B"]:
        """See `Strategy.is_active`."""
        return is_active(state, self.max_new_tokens)

    def answers(self, state: SingleState) -> Int[Array, "B T"]:
        """Return the tokens written."""
        return state.tokens

    def details(self, state: SingleState) -> None:
        """Return nothing."""

    def _append(self, logits: Float[Array, "B V"], state: SingleState) -> SingleState:
        active = self.is_active(state)
        chosen = unify_eos(self._choose(logits, state), self.eos_id, self.other_eos_ids)
        is_next = jnp.arange(self.max_new_tokens)[None] == state.step[:, None]
        tokens = jnp.where(is_next & active[:, None], chosen[:, None], state.tokens)
        is_finite = state.is_finite & (~active | sampling.are_finite(logits))
        ended = state.ended | (active & (chosen == self.eos_id)) | ~is_finite
        return state._replace(step=state.step + active, ended=ended, is_finite=is_finite, tokens=tokens, last=chosen)

    def _choose(self, logits: Float[Array, "B V"], state: SingleState) -> Int[Array, " B"]:
        if self.temperature is None:
            return sampling.greedy(logits)
        keys = sampling.at_steps(state.keys, state.step)
        return sampling.sample(logits, keys, self.temperature, self.top_p)
