"""Attention on TPUs by JAX's splash kernel, which skips the blocks of scores that a mask empties.

It never holds the scores in the chip's main memory, so its memory grows with a row's length and not with its square.
Key-value heads are shared inside the kernel, not repeated.

Dimensions: B batch, L positions, H query heads, K key-value heads, C head width; lower case for those of one device.
"""

from typing import Any

import jax
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from coi_jax.models.kernels.shard_map import Queries, Segments, by_device, local_shape
from coi_jax.models.kv_cache import KeyValues

# Positions are taken in blocks of so many, the largest that divides a device's: 512 as in MaxText, 128 at least.
BLOCKS = (512, 256, 128)


def obstacle(query: Queries) -> str:
    """Why the kernel cannot take some rows; empty where it can."""
    length = local_shape(query)[2]
    return (
        f"a device's positions of a row must be a multiple of {BLOCKS[-1]}, not {length}" if length % BLOCKS[-1] else ""
    )


def attend_rows(
    query: Queries,
    memory: KeyValues,
    segments: Segments,
    *,
    window: int,
    scale: float,
    cap: float,
    interpret: bool = False,
) -> Queries:
    """Causal attention of packed rows to themselves.

    Args:
      query: not scaled yet.
      memory: keys and values.
      segments: of packed rows, or None.
      window: positions that a query sees; 0: all up to its own.
      scale: of the scores.
      cap: that bends the scores; 0 caps nothing.
      interpret: compute without a TPU, slowly.
    """
    _, heads, own, _ = local_shape(query)
    kernel, specs = _kernel(heads, query.shape[2], query.shape[2] // own, window, cap, interpret)

    def of_device(
        query: Float[Array, "b h l c"],
        memory: KeyValues,
        ids: Int[Array, "b l"] | None,
        key_ids: Int[Array, "b L"] | None,
        kernel: Any,
    ) -> Float[Array, "b h l c"]:
        segments = None if ids is None or key_ids is None else splash.SegmentIds(ids, key_ids)
        return jax.vmap(kernel)(query, memory.keys, memory.values, segments)

    return by_device(of_device, query * scale, memory, segments, kernel, specs)


def _kernel(heads: int, length: int, shards: int, window: int, cap: float, interpret: bool) -> tuple[Any, Any]:
    """The kernel of a device's heads, and how its mask is divided where `shards` devices have a row's queries."""
    shape = (length, length)
    if 0 < window < length:
        mask: splash.Mask = splash.LocalMask(shape, (window - 1, 0), 0, shard_count=shards)
    else:
        mask = splash.CausalMask(shape, shard_count=shards)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=shards,
        block_sizes=_block_sizes(length // shards, length),
        attn_logits_soft_cap=cap or None,
        residual_checkpoint_name="attention",
        interpret=interpret,
    )
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel, PartitionSpec()
    sequence = "sequence" if shards > 1 else None
    return kernel, kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, sequence)))


def _block_sizes(queries: int, keys: int) -> splash.BlockSizes:
    """The largest blocks of queries and keys, forward and backward alike."""
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
