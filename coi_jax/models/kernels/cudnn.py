"""Attention on NVIDIA GPUs by cuDNN's fused kernel, which never holds the scores in memory.

Packed rows go to it as ragged batches: the examples of a row, and its padding as one more, by their starts and lengths.
That needs a Hopper GPU or a newer one. Its memory for the softmax grows with the most examples that a row may hold,
so this number is bounded; a batch beyond it is computed by XLA, row by row.

Dimensions: B batch, L positions, H query heads, K key-value heads, C head width, M most examples of a row; lower case
for those of one device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention  # `jax.nn` has no offsets
from jaxtyping import Array, Float, Int

from coi_jax.models.kernels.shard_map import Queries, Segments, by_device, local_shape
from coi_jax.models.kv_cache import KeyValues

WIDEST = {True: 256, False: 128}  # head, on Hopper or newer and before
POSITIONS = 64  # of a row for each example that it may hold
FEWEST = 8  # examples that a row may hold, however short
NONE = -1  # marks examples that a row does not have


def obstacle(query: Queries, *, packed: bool, cap: float) -> str:
    """Why the kernel cannot take some rows; empty where it can."""
    length, head_dim = query.shape[2:]
    checks = {
        f"computes in bfloat16 or float16, not in {query.dtype}": query.dtype not in (jnp.bfloat16, jnp.float16),
        "has no soft cap for scores": cap > 0,
        "takes whole rows: set config.mesh.sequence to 1": local_shape(query)[2] != length,
        f"takes heads of at most {WIDEST[is_hopper()]} channels, a multiple of 8, not {head_dim}": bool(
            head_dim > WIDEST[is_hopper()] or head_dim % 8
        ),
        "takes packed rows on a Hopper GPU or a newer one alone": packed and not is_hopper(),
    }
    return next((f"cuDNN {says}" for says, holds in checks.items() if holds), "")


def is_hopper() -> bool:
    """Whether this machine's GPU is of that generation or a newer one."""
    return all(float(device.compute_capability) >= 9 for device in jax.local_devices())


def attend_rows(
    query: Queries,
    memory: KeyValues,
    segments: Segments,
    *,
    window: int,
    scale: float,
    otherwise: Callable[[Queries, KeyValues, Segments], Queries],
) -> Queries:
    """Causal attention of packed rows to themselves.

    Args:
      query: not scaled yet.
      memory: keys and values.
      segments: of packed rows, or None.
      window: positions that a query sees; 0: all up to its own.
      scale: of the scores.
      otherwise: the same by other means, for rows of more examples than the kernel has room for.
    """

    def of_device(
        query: Float[Array, "b h l c"],
        memory: KeyValues,
        ids: Int[Array, "b l"] | None,
        _key_ids: Int[Array, "b l"] | None,
        _constants: tuple[()],
    ) -> Float[Array, "b h l c"]:
        if ids is None:
            return _fused(query, memory, None, window, scale)
        spans = examples(ids)
        fits = jnp.max(_count(ids)) <= spans[0].shape[1]
        return jax.lax.cond(
            fits,
            lambda: _fused(query, memory, spans, window, scale),
            lambda: _row_by_row(otherwise, query, memory, ids),
        )

    return by_device(of_device, query, memory, segments)


def most_examples(length: int) -> int:
    """Examples that a row of some positions may hold, its padding counted as one."""
    return min(length, max(FEWEST, length // POSITIONS))


def examples(segments: Int[Array, "b l"]) -> tuple[Int[Array, "b M"], Int[Array, "b M"]]:
    """Starts and lengths of the examples of each row, NONE for those that it does not have.

    Example: segments 1 1 1 2 2 0 have starts 0 3 5 and lengths 3 2 1.
    """
    length = segments.shape[1]
    most = most_examples(length)
    numbers = jnp.cumsum(_begins(segments), axis=1) - 1
    counts = jnp.sum(numbers[:, :, None] == jnp.arange(most)[None, None], axis=1, dtype=jnp.int32)
    starts = jnp.cumsum(counts, axis=1) - counts
    return jnp.where(counts > 0, starts, NONE), jnp.where(counts > 0, counts, NONE)


def _begins(segments: Int[Array, "b l"]) -> Int[Array, "b l"]:
    """1 where an example begins."""
    before = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)), constant_values=NONE)
    return (segments != before).astype(jnp.int32)


def _count(segments: Int[Array, "b l"]) -> Int[Array, "b"]:
    return jnp.sum(_begins(segments), axis=1)


def _fused(
    query: Float[Array, "b h l c"],
    memory: KeyValues,
    spans: tuple[Int[Array, "b M"], Int[Array, "b M"]] | None,
    window: int,
    scale: float,
) -> Float[Array, "b h l c"]:
    """One call of the kernel, which has positions before heads.

    Key-value heads are repeated where rows are packed: jax up to 0.10.2 gives cuDNN their places in memory as if there
    were as many of them as queries (jax-ml/jax#39521).
    """
    keys, values = memory
    if spans is not None and query.shape[1] != keys.shape[1]:
        keys, values = (jnp.repeat(part, query.shape[1] // keys.shape[1], axis=1) for part in memory)
    packed: dict[str, Any] = {}
    if spans is not None:
        starts, lengths = spans
        offsets = jnp.pad(starts, ((0, 0), (0, 1)), constant_values=NONE)
        packed = {"q_seqlen": lengths, "kv_seqlen": lengths, "q_offsets": offsets, "kv_offsets": offsets}
    mixed = dot_product_attention(
        query.transpose(0, 2, 1, 3),
        keys.transpose(0, 2, 1, 3),
        values.transpose(0, 2, 1, 3),
        scale=scale,
        mask_type=MaskType.CAUSAL if spans is None else MaskType.PADDING_CAUSAL,
        sliding_window_length=window if 0 < window < query.shape[2] else None,
        **packed,
    )
    return mixed.transpose(0, 2, 1, 3)


def _row_by_row(
    attend: Callable[[Queries, KeyValues, Segments], Queries],
    query: Float[Array, "b h l c"],
    memory: KeyValues,
    segments: Int[Array, "b l"],
) -> Float[Array, "b h l c"]:
    """Little memory is set aside for what is hardly ever needed; the backward pass computes it again."""

    @jax.checkpoint
    def one(row: tuple[Array, KeyValues, Array]) -> Array:
        query, memory, segments = jax.tree.map(lambda leaf: leaf[None], row)
        return attend(query, memory, segments)[0]

    return jax.lax.map(one, (query, memory, segments))
