"""Attention on NVIDIA GPUs with cuDNN's fused kernel, which never writes the scores to memory.

The kernel gets packed rows as ragged batches: the starts and lengths of the examples of a row, whose padding counts as
one more example. That needs a Hopper GPU or a newer one. The kernel's memory for the softmax grows with the number of
examples that a row may hold, so this number is bounded; XLA computes a batch beyond it, row by row.

Dimensions: B batch, L positions, H query heads, K key-value heads, C head_dim, M maximal number of examples of a row;
lower case for those of one device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention  # `jax.nn` has no offsets
from jaxtyping import Array, Float, Int

from coi_jax.models.kernels.shard_map import Queries, Segments, local_shape, shard_attention
from coi_jax.models.kv_cache import KeyValues

MAX_HEAD_DIM = {True: 256, False: 128}  # on Hopper or newer GPUs, and on older ones
POSITIONS_PER_EXAMPLE = 64  # a row may hold one example for so many positions
MIN_EXAMPLES = 8  # a row of any length may hold so many examples
ABSENT = -1  # start and length of examples that a row does not have


def unsupported_reason(query: Queries, *, packed: bool, cap: float | None) -> str:
    """Return why the kernel does not support some rows; "" where it does.

    Args:
      query: the queries of the rows.
      packed: whether a row may hold several examples.
      cap: the soft cap of scores; None for none.
    """
    length, head_dim = query.shape[2:]
    checks = {
        f"computes in bfloat16 or float16, not in {query.dtype}": query.dtype not in (jnp.bfloat16, jnp.float16),
        "has no soft cap for scores": cap is not None,
        "takes whole rows: set config.mesh.sequence to 1": local_shape(query)[2] != length,
        f"takes heads of at most {MAX_HEAD_DIM[is_hopper()]} channels, a multiple of 8, not {head_dim}": bool(
            head_dim > MAX_HEAD_DIM[is_hopper()] or head_dim % 8
        ),
        "takes packed rows on a Hopper GPU or a newer one alone": packed and not is_hopper(),
    }
    return next((f"cuDNN {says}" for says, holds in checks.items() if holds), "")


def is_hopper() -> bool:
    """Return whether all GPUs of this machine are of the Hopper generation or a newer one."""
    return all(float(device.compute_capability) >= 9 for device in jax.local_devices())


def causal_self_attention(
    query: Queries,
    kv: KeyValues,
    segments: Segments,
    *,
    window: int | None,
    scale: float,
    fallback: Callable[[Queries, KeyValues, Segments], Queries],
) -> Queries:
    """Compute causal self-attention of packed rows.

    Args:
      query: queries, not scaled yet.
      kv: keys and values.
      segments: numbers of the examples of packed rows, or None.
      window: positions that a query attends to, its own included; None for all up to its own.
      scale: factor of the scores.
      fallback: computes the same, for rows of more examples than the kernel supports.
    """

    def local_attention(
        query: Float[Array, "b h l c"],
        kv: KeyValues,
        ids: Int[Array, "b l"] | None,
        _key_ids: Int[Array, "b l"] | None,
        _constants: tuple[()],
    ) -> Float[Array, "b h l c"]:
        if ids is None:
            return _fused_attention(query, kv, None, window, scale)
        spans = example_spans(ids)
        fits = jnp.max(_example_count(ids)) <= spans[0].shape[1]
        attended: Float[Array, "b h l c"] = jax.lax.cond(
            fits,
            lambda: _fused_attention(query, kv, spans, window, scale),
            lambda: _row_by_row(fallback, query, kv, ids),
        )
        return attended

    return shard_attention(local_attention, query, kv, segments)


def max_examples(length: int) -> int:
    """Return how many examples a row of some positions may hold; its padding counts as one."""
    return min(length, max(MIN_EXAMPLES, length // POSITIONS_PER_EXAMPLE))


def example_spans(segments: Int[Array, "b l"]) -> tuple[Int[Array, "b M"], Int[Array, "b M"]]:
    """Return the starts and lengths of the examples of each row, ABSENT for those that it does not have.

    Example: segments 1 1 1 2 2 0 have starts 0 3 5 and lengths 3 2 1.
    """
    length = segments.shape[1]
    most = max_examples(length)
    numbers = jnp.cumsum(_starts_example(segments), axis=1) - 1
    counts = jnp.sum(numbers[:, :, None] == jnp.arange(most)[None, None], axis=1, dtype=jnp.int32)
    starts = jnp.cumsum(counts, axis=1) - counts
    return jnp.where(counts > 0, starts, ABSENT), jnp.where(counts > 0, counts, ABSENT)


def _starts_example(segments: Int[Array, "b l"]) -> Int[Array, "b l"]:
    """Return 1 at the first position of each example, 0 elsewhere."""
    before = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)), constant_values=ABSENT)
    return (segments != before).astype(jnp.int32)


def _example_count(segments: Int[Array, "b l"]) -> Int[Array, "b"]:
    return jnp.sum(_starts_example(segments), axis=1)


def _fused_attention(
    query: Float[Array, "b h l c"],
    kv: KeyValues,
    spans: tuple[Int[Array, "b M"], Int[Array, "b M"]] | None,
    window: int | None,
    scale: float,
) -> Float[Array, "b h l c"]:
    """Call the kernel, whose arrays have positions before heads.

    Key-value heads are repeated where rows are packed: jax up to 0.10.2 tells cuDNN their offsets in memory as if there
    were as many of them as query heads (jax-ml/jax#39521).
    """
    keys, values = kv
    if spans is not None and query.shape[1] != keys.shape[1]:
        keys, values = (jnp.repeat(part, query.shape[1] // keys.shape[1], axis=1) for part in kv)
    packed: dict[str, Any] = {}
    if spans is not None:
        starts, lengths = spans
        offsets = jnp.pad(starts, ((0, 0), (0, 1)), constant_values=ABSENT)
        packed = {"q_seqlen": lengths, "kv_seqlen": lengths, "q_offsets": offsets, "kv_offsets": offsets}
    attended: Float[Array, "b l h c"] = dot_product_attention(
        query.transpose(0, 2, 1, 3),
        keys.transpose(0, 2, 1, 3),
        values.transpose(0, 2, 1, 3),
        scale=scale,
        mask_type=MaskType.CAUSAL if spans is None else MaskType.PADDING_CAUSAL,
        sliding_window_length=window if window is not None and window < query.shape[2] else None,
        **packed,
    )
    return attended.transpose(0, 2, 1, 3)


def _row_by_row(
    attention: Callable[[Queries, KeyValues, Segments], Queries],
    query: Float[Array, "b h l c"],
    kv: KeyValues,
    segments: Int[Array, "b l"],
) -> Float[Array, "b h l c"]:
    """Apply `attention` row by row, and again in the backward pass: what is rarely needed must not cost memory."""

    @jax.checkpoint
    def one(row: tuple[Array, KeyValues, Array]) -> Array:
        query, kv, segments = jax.tree.map(lambda leaf: leaf[None], row)
        return attention(query, kv, segments)[0]

    attended: Float[Array, "b h l c"] = jax.lax.map(one, (query, kv, segments))
    return attended
