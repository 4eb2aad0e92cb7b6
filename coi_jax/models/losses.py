"""Cross entropy as sums over tokens, so that microbatches, hosts and packed rows add up to the same number.

Dimensions: B rows, L length, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class LossSums(NamedTuple):
    """Sums over target tokens, in fp32; divide by `tokens` for means."""

    loss: Float[Array, ""]  # nats
    tokens: Float[Array, ""]
    correct: Float[Array, ""]  # targets with a higher logit than every other token


def loss_sums(logits: Float[Array, "B L V"], targets: Int[Array, "B L"], weights: Int[Array, "B L"]) -> LossSums:
    """Return cross entropy, number and correct predictions of the positions whose weight is 1.

    Args:
      logits: of each position.
      targets: ids due at each position.
      weights: 1 where a position counts, else 0.
    """
    weights = weights.astype(jnp.float32)
    logits = logits.astype(jnp.float32)
    is_target = jnp.arange(logits.shape[-1])[None, None] == targets[:, :, None]
    target_logit = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    best_other = jnp.max(jnp.where(is_target, -jnp.inf, jax.lax.stop_gradient(logits)), axis=-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - target_logit
    correct = (target_logit > best_other).astype(jnp.float32)
    return LossSums(jnp.sum(losses * weights), jnp.sum(weights), jnp.sum(correct * weights))
