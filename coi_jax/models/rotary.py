"""Rotary positions (Su et al. 2021, section 3.2.2) and their stretching for longer texts.

Dimensions: B batch, L length, H heads, C head width.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coi_jax.config.model import RopeConfig

Rotation = tuple[Float[Array, "B L half"], Float[Array, "B L half"]]


def rotation(positions: Int[Array, "B L"], frequencies: np.ndarray) -> Rotation:
    """Cosines and sines of each position's angles, in fp32."""
    angles = positions[:, :, None].astype(jnp.float32) * jnp.asarray(frequencies)[None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B H L C"], angles: Rotation) -> Float[Array, "B H L C"]:
    """Turn each pair (i, i + C/2) by its angle: the pairing of Llama's published checkpoints."""
    cosine, sine = (part[:, None] for part in angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)


def frequencies(rope: RopeConfig, head_dim: int, *, local: bool = False) -> np.ndarray:
    """Radians a position for each pair of a head, fp32 [head_dim / 2]; `local` are those of a layer with a window.

    All are 0 in layers that are not turned.
    """
    if not (local or rope.everywhere):
        return np.zeros(head_dim // 2, np.float32)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    if local and rope.local_theta:
        return 1 / np.float32(rope.local_theta) ** exponents
    plain = 1 / np.float32(rope.theta) ** exponents
    if rope.scaling == "llama3":
        return _by_wavelength(plain, rope)
    return plain / np.float32(rope.factor)


def _by_wavelength(plain: np.ndarray, rope: RopeConfig) -> np.ndarray:
    """Llama 3.1's rule (Grattafiori et al. 2024, and the reference code published with the model).

    Angles that turn less than `low_frequency` times in the original length are stretched by `factor`, those that turn
    more than `high_frequency` times not at all, those between in part.
    """
    turns = rope.original_length * plain / (2 * math.pi)
    kept = np.clip((turns - rope.low_frequency) / (rope.high_frequency - rope.low_frequency), 0, 1)
    return ((1 - kept) * plain / rope.factor + kept * plain).astype(np.float32)
