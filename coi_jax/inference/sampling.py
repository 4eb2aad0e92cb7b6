"""Choice of the next token from logits: greedy or sampled.

Dimensions: B batch, V vocabulary.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt

OneOrPerRow = float | Float[Array, "B 1"]


def greedy(logits: Float[Array, "B V"]) -> Int[Array, " B"]:
    """Return the likeliest token of each row; of equals, the one with the smallest id."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def are_finite(logits: Float[Array, "B V"]) -> Bool[Array, " B"]:
    """Return the rows whose logits can be chosen from: the largest is finite, which it is not where any is NaN."""
    return jnp.isfinite(jnp.max(logits, axis=-1))


def sample(
    logits: Float[Array, "B V"], keys: Key[Array, " B"], temperature: OneOrPerRow, top_p: OneOrPerRow
) -> Int[Array, " B"]:
    """Draw a token of each row from its nucleus.

    Args:
      logits: the logits of the next token.
      keys: the key of each row.
      temperature: divides the logits; above 0.
      top_p: the probability mass of the nucleus.
    """
    kept = nucleus(logits.astype(jnp.float32) / temperature, top_p)
    return jax.vmap(jax.random.categorical)(keys, kept).astype(jnp.int32)


def nucleus(logits: Float[Array, "B V"], top_p: OneOrPerRow) -> Float[Array, "B V"]:
    """Return logits with -inf outside the nucleus: the fewest tokens whose probabilities add up to `top_p`.

    Source: Holtzman et al., 2020, section 3.1. Tokens as likely as the last one of the nucleus are kept too. A `top_p`
    below the smallest number of float32 keeps the likeliest token, as any other small one does.
    """
    top_p = jnp.maximum(top_p, np.finfo(np.float32).tiny)
    descending = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    smallest = jnp.min(jnp.where(before < top_p, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= smallest, logits, -jnp.inf)


def id_hash(id: str) -> int:
    """Return a number of 32 bits from an example's id."""
    return int.from_bytes(hashlib.sha256(id.encode("utf-8")).digest()[:4], "big")


def row_keys(seed: int | UInt[Array, "*rows"], hashes: UInt[Array, " B"]) -> Key[Array, " B"]:
    """Return a key for each example from its seed and its id's hash alone: the batch does not change its draws.

    Args:
      seed: of all examples, or one for each.
      hashes: of the examples' ids.
    """
    seeds = jnp.broadcast_to(jnp.asarray(seed, jnp.uint32), hashes.shape)
    return jax.vmap(lambda seed, hash: jax.random.fold_in(jax.random.key(seed), hash))(seeds, hashes)


def at_steps(keys: Key[Array, " B"], steps: Int[Array, " B"]) -> Key[Array, " B"]:
    """Return the keys of the draws of each row's step."""
    return jax.vmap(jax.random.fold_in)(keys, steps)
