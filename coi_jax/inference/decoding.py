"""One token at a time: the state of a batch that is being generated, and how a step changes it.

A strategy is static and hashable; its methods are pure functions of arrays, so a whole decoding loop is one compiled
program. `SingleStrategy` keeps one continuation a row (greedy, sampling); `beam_search` keeps several.

Dimensions: B batch, T most new tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from coi_jax.inference import sampling
from coi_jax.models.kv_cache import Cache, take
from coi_jax.models.network import Network, Params


@runtime_checkable
class Strategy(Protocol):
    """How a batch goes on.

    Its state is a named tuple of arrays with at least `step` (tokens written, the same for all rows), `ended` [B] (rows
    whose answer is whole) and `cache`.
    """

    @property
    def network(self) -> Network:
        """What gives the logits."""

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""

    @property
    def limit(self) -> int:
        """The most new tokens of a row."""

    def begin(self, logits: Float[Array, "B V"], cache: Cache, keys: Key[Array, " B"], ended: Bool[Array, " B"]) -> Any:
        """The state after the first new token; `ended` rows are padding."""

    def advance(self, params: Params, state: Any) -> Any:
        """The state after one more token."""

    def rows(self, state: Any, indices: Int[Array, " new"]) -> Any:
        """The state of some rows."""

    def answers(self, state: Any) -> Int[Array, "B T"]:
        """The tokens of each row's answer, to the first end-of-sequence token."""


def as_end(tokens: Int[Array, "*shape"], eos_id: int, other_ends: tuple[int, ...]) -> Int[Array, "*shape"]:
    """The tokens with `eos_id` for whatever ends an answer besides: published models may have several ends."""
    return jnp.where(jnp.isin(tokens, jnp.array(other_ends)), eos_id, tokens) if other_ends else tokens


class SingleState(NamedTuple):
    """One continuation a row."""

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
    limit: int
    temperature: float | None = None
    top_p: float = 1.0
    other_ends: tuple[int, ...] = ()

    def begin(
        self, logits: Float[Array, "B V"], cache: Cache, keys: Key[Array, " B"], ended: Bool[Array, " B"]
    ) -> SingleState:
        """The state after the first token."""
        tokens = jnp.full((len(ended), self.limit), self.eos_id, jnp.int32)
        empty = SingleState(jnp.asarray(0, jnp.int32), ended, tokens, tokens[:, 0], keys, cache)
        return self._append(logits, empty)

    def advance(self, params: Params, state: SingleState) -> SingleState:
        """One decode step of all rows, and the choice of the next token."""
        logits, cache = self.network.decode_step(params, state.cache, state.last)
        return self._append(logits, state._replace(cache=cache))

    def rows(self, state: SingleState, indices: Int[Array, " new"]) -> SingleState:
        """The state of rows `indices`."""
        kept = {name: getattr(state, name)[indices] for name in ("ended", "tokens", "last", "keys")}
        return state._replace(cache=take(state.cache, indices), **kept)

    def answers(self, state: SingleState) -> Int[Array, "B T"]:
        """The tokens written."""
        return state.tokens

    def _append(self, logits: Float[Array, "B V"], state: SingleState) -> SingleState:
        chosen = as_end(self._choose(logits, state), self.eos_id, self.other_ends)
        chosen = jnp.where(state.ended, self.eos_id, chosen)
        tokens = jax.lax.dynamic_update_slice(state.tokens, chosen[:, None], (0, state.step))
        ended = state.ended | (chosen == self.eos_id)
        return state._replace(step=state.step + 1, ended=ended, tokens=tokens, last=chosen)

    def _choose(self, logits: Float[Array, "B V"], state: SingleState) -> Int[Array, " B"]:
        if self.temperature is None:
            return sampling.greedy(logits)
        keys = sampling.at_step(state.keys, state.step)
        return sampling.sample(logits, keys, self.temperature, self.top_p)
