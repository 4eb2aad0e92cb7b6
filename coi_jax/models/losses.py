"""Cross entropy as sums over tokens, so that microbatches, hosts and packed rows add up to the same number.

Dimensions: B rows, L length, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real


class LossSums(NamedTuple):
    """Sums over target tokens, each times its weight, in fp32; divide by `tokens` for means."""

    loss: Float[Array, ""]  # nats
    tokens: Float[Array, ""]  # the sum of the weights: the number of targets where each has the weight 1
    correct: Float[Array, ""]  # targets with a higher logit than every other token


def loss_sums(logits: Float[Array, "B L V"], targets: Int[Array, "B L"], weights: Real[Array, "B L"]) -> LossSums:
    """Return the sums of cross entropy, weights and correct predictions over positions, each times its weight.

    Args:
      logits: of each position.
      targets: ids due at each position.
      weights: 0 where a position does not count.
    """
    weights = weights.astype(jnp.float32)
    logits = logits.astype(jnp.float32)
    is_target = jnp.arange(logits.shape[-1])[None, None] == targets[:, :, None]
    target_logit = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    best_other = jnp.max(jnp.where(is_target, -jnp.inf, jax.lax.stop_gradient(logits)), axis=-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - target_logit
    correct = (target_logit > best_other).astype(jnp.float32)
    return LossSums(jnp.sum(losses * weights), jnp.sum(weights), jnp.sum(correct * weights))
