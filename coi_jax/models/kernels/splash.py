"""Attention on TPUs with JAX's splash kernel, which skips blocks of scores that are masked altogether.

It never holds the scores in the chip's main memory, so its memory grows with a row's length and not with its square.
Key-value heads are shared inside the kernel, not repeated.

Dimensions: B batch, L positions, H query heads, K key-value heads, C head_dim; lower case for those of one device.
"""

from typing import Any

import jax
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from coi_jax.models.kernels.shard_map import Queries, Segments, local_shape, shard_attention
from coi_jax.models.kv_cache import KeyValues

# Positions in a block: the largest of these that divides a device's positions; MaxText uses 512.
BLOCKS = (512, 256, 128)


def unsupported_reason(query: Queries) -> str:
    """Return why the kernel does not support some rows; "" where it does."""
    length = local_shape(query)[2]
    return (
        f"a device's positions of a row must be a multiple of {BLOCKS[-1]}, not {length}" if length % BLOCKS[-1] else ""
    )


def causal_self_attention(
    query: Queries,
    kv: KeyValues,
    segments: Segments,
    *,
    window: int | None,
    scale: float,
    cap: float | None,
    interpret: bool = False,
) -> Queries:
    """Compute causal self-attention of packed rows.

    Args:
      query: queries, not scaled yet.
      kv: keys and values.
      segments: numbers of the examples of packed rows, or None.
      window: positions that a query attends to, its own included; None for all up to its own.
      scale: factor of the scores.
      cap: soft cap of the scores; None for none.
      interpret: run in Pallas' interpreter, without a TPU and slowly.
    """
    _, heads, own, _ = local_shape(query)
    kernel, specs = _kernel(heads, query.shape[2], query.shape[2] // own, window, cap, interpret)

    def local_attention(
        query: Float[Array, "b h l c"],
        kv: KeyValues,
        ids: Int[Array, "b l"] | None,
        key_ids: Int[Array, "b L"] | None,
        kernel: Any,
    ) -> Float[Array, "b h l c"]:
        segments = None if ids is None or key_ids is None else splash.SegmentIds(ids, key_ids)
        attended: Float[Array, "b h l c"] = jax.vmap(kernel)(query, kv.keys, kv.values, segments)
        return attended

    return shard_attention(local_attention, query * scale, kv, segments, kernel, specs)


def _kernel(
    heads: int, length: int, shards: int, window: int | None, cap: float | None, interpret: bool
) -> tuple[Any, Any]:
    """Return the kernel for a device's heads, and the PartitionSpecs of its mask.

    Args:
      heads: query heads of a device.
      length: positions of a row.
      shards: devices that share the queries of a row.
      window: as in `causal_self_attention`.
      cap: as in `causal_self_attention`.
      interpret: as in `causal_self_attention`.
    """
    shape = (length, length)
    if window is not None and window < length:
        mask: splash.Mask = splash.LocalMask(shape, (window - 1, 0), 0, shard_count=shards)
    else:
        mask = splash.CausalMask(shape, shard_count=shards)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=shards,
        block_sizes=_block_sizes(length // shards, length),
        attn_logits_soft_cap=cap,
        residual_checkpoint_name="attention",
        interpret=interpret,
    )
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel, PartitionSpec()
    sequence = "sequence" if shards > 1 else None
    return kernel, kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, sequence)))


def _block_sizes(queries: int, keys: int) -> splash.BlockSizes:
    """Return the largest blocks of queries and keys, the same in the forward and the backward pass."""
    q, k = (next(block for block in BLOCKS if positions % block == 0) for positions in (queries, keys))
    return splash.BlockSizes(
        block_q=q,
        block_kv=k,
        block_kv_compute=k,
        block_q_dkv=q,
        block_kv_dkv=k,
        block_kv_dkv_compute=k,
        block_q_dq=q,
        block_kv_dq=k,
    )
