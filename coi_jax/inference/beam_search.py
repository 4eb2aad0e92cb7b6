"""Beam search: several continuations per row, the best of which by length-normalized likelihood is the answer.

The search is that of `transformers` (`GenerationMixin._beam_search`), with the same two settings. Of the 2K best
continuations of a row's K beams (more where several tokens end an answer), those that end and are among the K best are
kept as finished, and the K best of the others go on. With `early_stopping` a row ends when it has K finished
continuations; without it, when in addition no live beam scores better than the worst of them. At the limit the live
beams count as they are.

Dimensions: B batch, K beams, T most new tokens, V vocabulary. The cache has B·K rows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from coi_jax.inference.decoding import is_active, unify_eos
from coi_jax.inference.sampling import are_finite
from coi_jax.models.kv_cache import Cache, copy_slots, gather_rows
from coi_jax.models.network import Network, Params

WORST = -1e9  # below every log-likelihood, and finite, so that sums of it are


def length_divisor(length: Int[Array, "*shape"], exponent: float) -> Float[Array, "*shape"]:
    """Return the divisor of a log-likelihood, length^exponent: a larger exponent favors longer answers."""
    return length.astype(jnp.float32) ** exponent


class BeamState(NamedTuple):
    """The live beams of each row, best first, and its finished ones."""

    step: Int[Array, " B"]
    ended: Bool[Array, " B"]
    is_finite: Bool[Array, " B"]
    tokens: Int[Array, "B K T"]
    scores: Float[Array, "B K"]  # log-likelihoods
    finished: Int[Array, "B K T"]
    finished_scores: Float[Array, "B K"]  # normalised by length
    cache: Cache


@dataclass(frozen=True)
class BeamStrategy:
    """Beam search.

    Attributes:
      network: the network that computes the logits.
      eos_id: the token that ends an answer.
      max_new_tokens: the limit of new tokens per row.
      beams: the number of beams, K.
      other_eos_ids: tokens that end an answer besides.
      length_penalty: the exponent of the length that divides a log-likelihood.
      early_stopping: whether a row ends as soon as it has K finished continuations.
    """

    network: Network
    eos_id: int
    max_new_tokens: int
    beams: int
    other_eos_ids: tuple[int, ...] = ()
    length_penalty: float = 1.0
    early_stopping: bool = False

    def empty_state(self, cache: Cache, keys: Key[Array, " B"]) -> BeamState:
        """See `Strategy.empty_state`; the search draws nothing."""
        batch = len(keys)
        tokens = jnp.full((batch, self.beams, self.max_new_tokens), self.eos_id, jnp.int32)
        scores = jnp.full(tokens.shape[:2], WORST)
        step, true = jnp.zeros(batch, jnp.int32), jnp.ones(batch, bool)
        return BeamState(step, true, true, tokens, scores, tokens, scores, cache)

    def init_state(
        self, logits: Float[Array, "B V"], cache: Cache, keys: Key[Array, " B"], options: None = None
    ) -> BeamState:
        """Return the state after the first token. Only beam 0 starts with a chance, as all beams are equal.

        Args:
          logits: the logits of each row's first new token.
          cache: the cache of the prompts.
          keys: unused; the search draws nothing.
          options: none; all rows are decoded alike.
        """
        empty = self.empty_state(self._repeat(cache, len(logits)), keys)
        begun = empty._replace(ended=jnp.zeros_like(empty.ended), scores=empty.scores.at[:, 0].set(0.0))
        return self._expand(jnp.repeat(logits, self.beams, axis=0), begun)

    def advance(self, params: Params, state: BeamState) -> BeamState:
        """Take one decode step of all beams, and choose among their continuations."""
        last = jnp.take_along_axis(state.tokens, jnp.maximum(state.step - 1, 0)[:, None, None], axis=2)
        logits, cache = self.network.decode_step(params, state.cache, last.reshape(-1))
        return self._expand(logits, state._replace(cache=cache))

    def is_active(self, state: BeamState) -> Bool[Array, " B"]:
        """See `Strategy.is_active`."""
        return is_active(state, self.max_new_tokens)

    def details(self, state: BeamState) -> None:
        """Return nothing."""

    def answers(self, state: BeamState) -> Int[Array, "B T"]:
        """Return the best finished continuation of each row; the best of all where a row never ended."""
        live = jnp.where(state.ended[:, None], WORST, state.scores / self._divisor(jnp.maximum(state.step, 1)))
        scores = jnp.concatenate([state.finished_scores, live], axis=1)
        return _pick(jnp.concatenate([state.finished, state.tokens], axis=1), jnp.argmax(scores, axis=1)[:, None])[:, 0]

    def _repeat(self, cache: Cache, batch: int) -> Cache:
        return gather_rows(cache, jnp.repeat(jnp.arange(batch), self.beams))

    def _expand(self, logits: Float[Array, "BK V"], state: BeamState) -> BeamState:
        """Add a token to each beam; rows that have ended, or reached the limit, stay as they are."""
        active = self.is_active(state)
        scores, parents, chosen = self._candidates(logits, state)
        tokens = _append(_pick(state.tokens, parents), chosen, state.step)
        ends = chosen == self.eos_id
        finished, finished_scores = self._finish(tokens, scores, ends, state)
        scores, best = jax.lax.top_k(jnp.where(ends, WORST, scores), self.beams)
        live = _pick(tokens, best)
        is_finite = state.is_finite & are_finite(logits).reshape(-1, self.beams).all(axis=1)
        ended = state.ended | self._has_ended(scores, finished_scores, state.step + 1) | ~is_finite
        cache = self._reorder(state.cache, jnp.take_along_axis(parents, best, axis=1))
        expanded = BeamState(state.step + 1, ended, is_finite, live, scores, finished, finished_scores, cache)
        return _where_rows(active, expanded, state)

    def _has_ended(
        self, scores: Float[Array, "B K"], finished_scores: Float[Array, "B K"], length: Int[Array, " B"]
    ) -> Bool[Array, " B"]:
        """Return the rows with K finished continuations that no live beam beats, as long as it is now."""
        is_full = jnp.all(finished_scores > WORST / 2, axis=1)
        if self.early_stopping:
            return is_full
        return is_full & (scores[:, 0] / self._divisor(length)[:, 0] <= jnp.min(finished_scores, axis=1))

    def _divisor(self, length: Int[Array, " B"]) -> Float[Array, "B 1"]:
        return length_divisor(length, self.length_penalty)[:, None]

    def _candidates(
        self, logits: Float[Array, "BK V"], state: BeamState
    ) -> tuple[Float[Array, "B C"], Int[Array, "B C"], Int[Array, "B C"]]:
        """Return the best continuations of each row: log-likelihood, beam that they continue, token.

        They are so many that at least K of them do not end.
        """
        count = self.beams * (2 + len(self.other_eos_ids))
        vocabulary = logits.shape[-1]
        steps = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1).reshape(-1, self.beams, vocabulary)
        total = (state.scores[:, :, None] + steps).reshape(-1, self.beams * vocabulary)
        scores, flat = jax.lax.top_k(total, min(count, total.shape[1]))
        return scores, flat // vocabulary, unify_eos(flat % vocabulary, self.eos_id, self.other_eos_ids)

    def _finish(
        self, tokens: Int[Array, "B C T"], scores: Float[Array, "B C"], ends: Bool[Array, "B C"], state: BeamState
    ) -> tuple[Int[Array, "B K T"], Float[Array, "B K"]]:
        """Return the best K of the finished continuations, old and new."""
        among_best = jnp.arange(ends.shape[1])[None] < self.beams
        counts = ends & among_best & (scores > WORST / 2)
        new = jnp.where(counts, scores / self._divisor(state.step + 1), WORST)
        best_scores, best = jax.lax.top_k(jnp.concatenate([state.finished_scores, new], axis=1), self.beams)
        return _pick(jnp.concatenate([state.finished, tokens], axis=1), best), best_scores

    def _reorder(self, cache: Cache, parents: Int[Array, "B K"]) -> Cache:
        """Return the cache with the beams that are continued. What they share, as the prompt, stays where it is."""
        first = jnp.arange(len(parents))[:, None] * self.beams
        start = jnp.maximum(cache.length - self.max_new_tokens, 0)
        return copy_slots(cache, (first + parents).reshape(-1), start, self.max_new_tokens)


def _pick(tokens: Int[Array, "B N T"], indices: Int[Array, "B M"]) -> Int[Array, "B M T"]:
    return jnp.take_along_axis(tokens, indices[:, :, None], axis=1)


def _append(tokens: Int[Array, "B C T"], chosen: Int[Array, "B C"], step: Int[Array, " B"]) -> Int[Array, "B C T"]:
    is_next = jnp.arange(tokens.shape[2])[None, None] == step[:, None, None]
    return jnp.where(is_next, chosen[:, :, None].astype(jnp.int32), tokens)


def _where_rows(active: Bool[Array, " B"], new: BeamState, old: BeamState) -> BeamState:
    """Return the new state of active rows and the old one of others, whose cache is not read again."""

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(active.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    small = jax.tree.map(choose, new[:-1], old[:-1])
    return BeamState._make((*small, new.cache))
