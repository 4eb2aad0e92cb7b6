"""Rotary position embeddings (Su et al. 2021, section 3.2.2) and their scaling for longer texts.

Dimensions: B batch, L length, H heads, C head_dim.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coi_jax.config.model import RopeConfig
from coi_jax.families.decoder_common import longrope_attention_factor, yarn_attention_factor

CosSin = tuple[Float[Array, "B L half"], Float[Array, "B L half"]]


class Rotation(NamedTuple):
    """What a layer does to queries and keys by their positions.

    Attributes:
      angles: that both are rotated by.
      query_scale: what rotated queries are multiplied by, from `query_scale`; None: nothing.
    """

    angles: CosSin
    query_scale: Float[Array, "B L"] | None = None

    def of_queries(self, query: Float[Array, "B H L C"]) -> Float[Array, "B H L C"]:
        """Return queries as they meet the keys."""
        rotated = apply_rotary(query, self.angles)
        if self.query_scale is None:
            return rotated
        return rotated * self.query_scale[:, None, :, None].astype(rotated.dtype)

    def of_keys(self, keys: Float[Array, "B H L C"]) -> Float[Array, "B H L C"]:
        """Return keys as they meet the queries."""
        return apply_rotary(keys, self.angles)


def rotary_cos_sin(
    positions: Int[Array, "B L"], frequencies: np.ndarray | Float[Array, "B _ half"], scale: float = 1.0
) -> CosSin:
    """Return the cosines and sines of the angles of each position, in fp32.

    Args:
      positions: of the tokens.
      frequencies: from `rotary_frequencies`, the same for all positions or one each.
      scale: what both are multiplied by, from `rotary_scale`.
    """
    each = jnp.asarray(frequencies)[None, None] if frequencies.ndim == 1 else frequencies
    angles = positions[:, :, None].astype(jnp.float32) * each
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    return (cosine, sine) if scale == 1 else (cosine * scale, sine * scale)


def apply_rotary(x: Float[Array, "B H L C"], angles: CosSin) -> Float[Array, "B H L C"]:
    """Rotate each pair of channels (i, i + C/2) by its angle: the pairing of Llama's published checkpoints.

    Where there are angles for fewer pairs, C is the number of the first channels that they rotate.
    """
    cosine, sine = (part[:, None] for part in angles)
    half = cosine.shape[-1]
    first, second = x[..., :half].astype(jnp.float32), x[..., half : 2 * half].astype(jnp.float32)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    kept = x[..., 2 * half :]
    return jnp.concatenate([rotated.astype(x.dtype), kept], axis=-1) if kept.shape[-1] else rotated.astype(x.dtype)


def rotary_frequencies(rope: RopeConfig, head_dim: int, *, local: bool = False, long: bool = False) -> np.ndarray:
    """Return the angle per position, in radians, of each pair of channels that is rotated: fp32 [pairs].

    All are 0 in layers without rotary positions.

    Args:
      rope: base and scaling.
      head_dim: channels of a head.
      local: whether the layer has a sliding window.
      long: whether the sequence is longer than `rope.original_length`, which LongRoPE alone asks for.
    """
    channels = rope.rotated_channels(head_dim)
    if not (local or rope.everywhere):
        return np.zeros(channels // 2, np.float32)
    exponents = np.arange(0, channels, 2, dtype=np.float32) / np.float32(channels)
    if local and rope.local_theta:
        local_frequencies: np.ndarray = 1 / np.float32(rope.local_theta) ** exponents
        return local_frequencies
    plain: np.ndarray = 1 / np.float32(rope.theta) ** exponents
    if rope.scaling == "llama3":
        return _llama3_frequencies(plain, rope)
    if rope.scaling == "yarn":
        return _yarn_frequencies(plain, rope)
    if rope.scaling == "dynamic":  # up to the original length, and no sequence is longer
        return plain
    if rope.scaling == "longrope":
        factors = np.asarray(rope.long_factors if long else rope.short_factors, np.float32)
        stretched: np.ndarray = 1 / (factors * np.float32(rope.theta) ** exponents)
        return stretched
    return plain / np.float32(rope.factor)


def rotary_scale(rope: RopeConfig, *, local: bool = False) -> float:
    """Return what YaRN and LongRoPE multiply rotated queries and keys by; 1 for all others.

    Args:
      rope: base and scaling.
      local: whether the layer has a sliding window.
    """
    if local and rope.local_theta:
        return 1.0
    if rope.scaling == "longrope":
        return longrope_attention_factor(rope.factor, rope.original_length)
    if rope.scaling == "yarn":
        return yarn_attention_factor(rope.factor) if rope.attention_factor is None else rope.attention_factor
    return 1.0


def query_scale(rope: RopeConfig, positions: Int[Array, "B L"]) -> Float[Array, "B L"] | None:
    """Return what queries are multiplied by at their positions, so that attention stays sharp in long texts.

    It is Llama 4's rule, which Ministral 3 has too; None where the model has no such rule.
    """
    if not rope.query_growth:
        return None
    return 1 + rope.query_growth * jnp.log1p((positions // rope.original_length).astype(jnp.float32))


def sequence_lengths(positions: Int[Array, "B L"], segments: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """Return for each token of packed rows how many tokens its own sequence has."""

    def of_row(positions: Int[Array, "L"], segments: Int[Array, "L"]) -> Int[Array, "L"]:
        last = jax.ops.segment_max(positions, segments, num_segments=len(segments) + 1)
        return last[segments] + 1

    lengths: Int[Array, "B L"] = jax.vmap(of_row)(positions, segments)
    return lengths


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
