"""Rotary position embeddings (Su et al. 2021, section 3.2.2) and their scaling for longer texts.

Dimensions: B batch, L length, H heads, C head_dim.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coi_jax.config.model import RopeConfig
from coi_jax.families.decoder_common import yarn_attention_factor

CosSin = tuple[Float[Array, "B L half"], Float[Array, "B L half"]]


def rotary_cos_sin(positions: Int[Array, "B L"], frequencies: np.ndarray, scale: float = 1.0) -> CosSin:
    """Return the cosines and sines of the angles of each position, in fp32.

    Args:
      positions: of the tokens.
      frequencies: from `rotary_frequencies`.
      scale: what both are multiplied by, from `rotary_scale`.
    """
    angles = positions[:, :, None].astype(jnp.float32) * jnp.asarray(frequencies)[None, None]
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    return (cosine, sine) if scale == 1 else (cosine * scale, sine * scale)


def apply_rotary(x: Float[Array, "B H L C"], angles: CosSin) -> Float[Array, "B H L C"]:
    """Rotate each pair of channels (i, i + C/2) by its angle: the pairing of Llama's published checkpoints."""
    cosine, sine = (part[:, None] for part in angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return rotated.astype(x.dtype)


def rotary_frequencies(rope: RopeConfig, head_dim: int, *, local: bool = False) -> np.ndarray:
    """Return the angle per position, in radians, of each pair of channels: fp32 [head_dim / 2].

    All are 0 in layers without rotary positions.

    Args:
      rope: base and scaling.
      head_dim: channels of a head.
      local: whether the layer has a sliding window.
    """
    if not (local or rope.everywhere):
        return np.zeros(head_dim // 2, np.float32)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    if local and rope.local_theta:
        local_frequencies: np.ndarray = 1 / np.float32(rope.local_theta) ** exponents
        return local_frequencies
    plain: np.ndarray = 1 / np.float32(rope.theta) ** exponents
    if rope.scaling == "llama3":
        return _llama3_frequencies(plain, rope)
    if rope.scaling == "yarn":
        return _yarn_frequencies(plain, rope)
    return plain / np.float32(rope.factor)


def rotary_scale(rope: RopeConfig, *, local: bool = False) -> float:
    """Return what YaRN multiplies rotated queries and keys by (Peng et al. 2023, section 3.4); 1 for all others.

    Args:
      rope: base and scaling.
      local: whether the layer has a sliding window.
    """
    is_stretched = rope.scaling == "yarn" and not (local and rope.local_theta)
    return yarn_attention_factor(rope.factor) if is_stretched else 1.0


def _yarn_frequencies(plain: np.ndarray, rope: RopeConfig) -> np.ndarray:
    """Scale frequencies by YaRN's rule (Peng et al. 2023, section 3.2).

    As Llama 3.1's rule, but interpolated by the number of the channel pair, between whole numbers.
    """
    pairs = len(plain)

    def pair_of(rotations: float) -> float:
        """Return the pair that turns so many times in the original length, as a real number."""
        return pairs * math.log(rope.original_length / (rotations * 2 * math.pi)) / math.log(rope.theta)

    first = max(math.floor(pair_of(rope.high_frequency)), 0)
    last = min(math.ceil(pair_of(rope.low_frequency)), 2 * pairs - 1)
    stretched = np.clip((np.arange(pairs) - first) / max(last - first, 0.001), 0, 1).astype(np.float32)
    frequencies: np.ndarray = (plain / np.float32(rope.factor) * stretched + plain * (1 - stretched)).astype(np.float32)
    return frequencies


def _llama3_frequencies(plain: np.ndarray, rope: RopeConfig) -> np.ndarray:
    """Scale frequencies by Llama 3.1's rule (Grattafiori et al. 2024, and the reference code of the model).

    Frequencies of less than `low_frequency` rotations in the original length are divided by `factor`, those of more
    than `high_frequency` rotations are kept, and those between are interpolated.
    """
    rotations = rope.original_length * plain / (2 * math.pi)
    kept = np.clip((rotations - rope.low_frequency) / (rope.high_frequency - rope.low_frequency), 0, 1)
    frequencies: np.ndarray = ((1 - kept) * plain / rope.factor + kept * plain).astype(np.float32)
    return frequencies
