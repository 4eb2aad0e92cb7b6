"""Decoding one token at a time: the state of a batch that is being generated, and how a step changes it.

A strategy is static and hashable; its methods are pure functions of arrays, so a whole decoding loop is one
compiled program. `SingleStrategy` keeps one continuation per row (greedy, sampling); `beam_search` keeps several.

Dimensions: B batch, T most new tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from coi_jax.inference import sampling
from coi_jax.models.kv_cache import Cache, gather_rows
from coi_jax.models.network import Network, Params


@runtime_checkable
class Strategy(Protocol):
    """A way of decoding.

    Its state is a named tuple of arrays with at least `step` (tokens written, the same for all rows), `ended` [B] (rows
    whose answer is complete) and `cache`.
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

    def init_state(
        self, logits: Float[Array, "B V"], cache: Cache, keys: Key[Array, " B"], ended: Bool[Array, " B"]
    ) -> Any:
        """Return the state after the first new token.

        Args:
          logits: the logits of each row's first new token.
          cache: the cache of the prompts.
          keys: the key of each row's draws.
          ended: rows that are padding.
        """

    def advance(self, params: Params, state: Any) -> Any:
        """Return the state after one more token."""

    def select_rows(self, state: Any, indices: Int[Array, " new"]) -> Any:
        """Return the state of some rows."""

    def answers(self, state: Any) -> Int[Array, "B T"]:
        """Return the tokens of each row's answer, up to the first end-of-sequence token."""


def unify_eos(tokens: Int[Array, "*shape"], eos_id: int, other_eos_ids: tuple[int, ...]) -> Int[Array, "*shape"]:
    """Return tokens with `eos_id` in place of every other end-of-sequence token: published models may have several.

    Args:
      tokens: token ids of any shape.
      eos_id: the id that stands for all ends.
      other_eos_ids: the ids that end an answer besides.
    """
    return jnp.where(jnp.isin(tokens, jnp.array(other_eos_ids)), eos_id, tokens) if other_eos_ids else tokens


class SingleState(NamedTuple):
    """The state with one continuation per row."""

    step: Int[Array, ""]
    ended: Bool[Array, " B"]
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

    def init_state(
        self, logits: Float[Array, "B V"], cache: Cache, keys: Key[Array, " B"], ended: Bool[Array, " B"]
    ) -> SingleState:
        """See `Strategy.init_state`."""
        tokens = jnp.full((len(ended), self.max_new_tokens), self.eos_id, jnp.int32)
        empty = SingleState(jnp.asarray(0, jnp.int32), ended, tokens, tokens[:, 0], keys, cache)
        return self._append(logits, empty)

    def advance(self, params: Params, state: SingleState) -> SingleState:
        """Take one decode step of all rows, and choose the next token."""
        logits, cache = self.network.decode_step(params, state.cache, state.last)
        return self._append(logits, state._replace(cache=cache))

    def select_rows(self, state: SingleState, indices: Int[Array, " new"]) -> SingleState:
        """Return the state of rows `indices`."""
        kept = {name: getattr(state, name)[indices] for name in ("ended", "tokens", "last", "keys")}
        return state._replace(cache=gather_rows(state.cache, indices), **kept)

    def answers(self, state: SingleState) -> Int[Array, "B T"]:
        """Return the tokens written."""
        return state.tokens

    def _append(self, logits: Float[Array, "B V"], state: SingleState) -> SingleState:
        chosen = unify_eos(self._choose(logits, state), self.eos_id, self.other_eos_ids)
        chosen = jnp.where(state.ended, self.eos_id, chosen)
        tokens = jax.lax.dynamic_update_slice(state.tokens, chosen[:, None], (0, state.step))
        ended = state.ended | (chosen == self.eos_id)
        return state._replace(step=state.step + 1, ended=ended, tokens=tokens, last=chosen)

    def _choose(self, logits: Float[Array, "B V"], state: SingleState) -> Int[Array, " B"]:
        if self.temperature is None:
            return sampling.greedy(logits)
        keys = sampling.at_step(state.keys, state.step)
        return sampling.sample(logits, keys, self.temperature, self.top_p)
