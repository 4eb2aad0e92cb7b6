"""Attention, its masks, and the projections around it.

Dimensions: B batch, L queries, M keys, H query heads, K key-value heads (H = G·K), C head_dim, D model_dim.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, Key

from coi_jax.models.kernels import cudnn, selection, splash
from coi_jax.models.kv_cache import KeyValues, decode_mask
from coi_jax.models.layers import Linear, softcap, split_key
from coi_jax.parallel.hardware import platform
from coi_jax.parallel.sharding import constrain

MASKED = -1e30  # finite, so that a query that may attend to nothing gives numbers and not NaN
MIN_BLOCK = 128  # queries of a block
MAX_BLOCKS = 8  # blocks of a row, each of which is compiled by itself
CACHE_BLOCK = 256  # slots of a cache that are read together


def causal_mask(length: int) -> Bool[Array, "1 L L"]:
    """Return True where a key is not later than the query."""
    return jnp.tri(length, dtype=bool)[None]


def segment_mask(queries: Int[Array, "B L"], keys: Int[Array, "B M"]) -> Bool[Array, "B L M"]:
    """Return True where query and key belong to the same packed example (padding is segment 0)."""
    return queries[:, :, None] == keys[:, None, :]


def length_mask(lengths: Int[Array, "B"], slots: int) -> Bool[Array, "B M"]:
    """Return True in the first `lengths` slots of each row."""
    return jnp.arange(slots)[None, :] < lengths[:, None]


class AttentionPattern(NamedTuple):
    """The keys that the queries of the same rows may attend to: causal, within an example, within a window."""

    segments: Int[Array, "B L"] | None  # numbers of the examples of packed rows, 0 for padding; None: one example a row
    window: int | None = None  # positions that a query attends to, its own included; None: all up to its own

    def first_visible_key(self, query: int) -> int:
        """Return the first position that a query may attend to."""
        return max(0, query - self.window + 1) if self.window else 0

    def mask(self, queries: slice, keys: slice) -> Bool[Array, "#B L M"]:
        """Return True where the query of a row may attend to the key of a column."""
        row, column = (np.arange(part.start, part.stop) for part in (queries, keys))
        distance = row[:, None] - column[None, :]
        mask = jnp.asarray((distance >= 0) & (distance < self.window if self.window else True))[None]
        return mask if self.segments is None else mask & segment_mask(self.segments[:, queries], self.segments[:, keys])


def causal_self_attention(
    query: Float[Array, "B H L C"],
    kv: KeyValues,
    pattern: AttentionPattern,
    *,
    scale: float,
    cap: float | None,
    kernel: str = "xla",
) -> Float[Array, "B H L C"]:
    """Compute causal self-attention of rows with the kernel that `selection.select_kernel` selects.

    All kernels give the same result but for rounding; "xla" supports all inputs on all platforms.

    Args:
      query: queries, not scaled yet.
      kv: keys and values.
      pattern: the keys that each query may attend to.
      scale: factor of the scores.
      cap: soft cap of the scores; None for none.
      kernel: `config.model.attention`.
    """
    segments, window = pattern

    def by_xla(query: Array, kv: KeyValues, segments: Array | None) -> Array:
        return blockwise_attention(query, kv, AttentionPattern(segments, window), scale=scale, cap=cap)

    chosen = selection.select_kernel(kernel, query, packed=segments is not None, cap=cap)
    if chosen == "splash":
        return splash.causal_self_attention(query, kv, segments, window=window, scale=scale, cap=cap)
    if chosen == "cudnn":
        return cudnn.causal_self_attention(query, kv, segments, window=window, scale=scale, fallback=by_xla)
    return by_xla(query, kv, segments)


def blockwise_attention(
    query: Float[Array, "B H L C"], kv: KeyValues, pattern: AttentionPattern, *, scale: float, cap: float | None
) -> Float[Array, "B H L C"]:
    """Compute causal self-attention of rows block by block of queries, each with only the keys that it may attend to.

    About half of the scores of a row belong to later keys, and with a window most belong to keys outside it: these are
    never computed. Where devices share the positions of a row there is one block.

    Args:
      query: queries, not scaled yet.
      kv: keys and values.
      pattern: the keys that each query may attend to.
      scale: factor of the scores.
      cap: soft cap of the scores; None for none.
    """
    attended = []
    for queries in query_blocks(query.shape[2]):
        keys = slice(pattern.first_visible_key(queries.start), queries.stop)
        visible, mask = KeyValues(kv.keys[:, :, keys], kv.values[:, :, keys]), pattern.mask(queries, keys)
        attended.append(dot_product_attention(query[:, :, queries], visible, mask, scale=scale, cap=cap))
    return attended[0] if len(attended) == 1 else jnp.concatenate(attended, axis=2)


def query_blocks(length: int) -> list[slice]:
    """Return the positions of each block of queries of a row."""
    mesh = jax.sharding.get_abstract_mesh()
    is_divided = not mesh.empty and mesh.shape.get("sequence", 1) > 1
    size = length if is_divided else max(MIN_BLOCK, -(-length // MAX_BLOCKS))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def dot_product_attention(
    query: Float[Array, "B H L C"],
    kv: KeyValues,
    mask: Bool[Array, "#B #L M"],
    *,
    scale: float,
    bias: Float[Array, "*B H #L M"] | None = None,
    cap: float | None = None,
) -> Float[Array, "B H L C"]:
    """Compute softmax attention (Vaswani et al. 2017, section 3.2), in fp32 between the two products.

    Consecutive groups of H / K query heads share one key-value head (Ainslie et al. 2023). The sum that normalizes the
    weights divides the weighted values rather than the weights: that saves passes over [L, M] arrays, most of all in
    the backward pass (Dao et al. 2022, section 3.1).

    Args:
      query: queries, not scaled yet.
      kv: keys and values.
      mask: True where a query may attend to a key.
      scale: factor of the scores.
      bias: added to the scores after the soft cap; the same for all rows, or one for each.
      cap: soft cap of the scores; None for none.
    """
    batch, heads, length, head_dim = query.shape
    kv_heads = kv.keys.shape[1]
    grouped = (query * scale).reshape(batch, kv_heads, heads // kv_heads, length, head_dim)
    scores = jnp.einsum("bkglc,bkmc->bkglm", grouped, kv.keys, preferred_element_type=jnp.float32)
    scores = softcap(scores, cap)
    if bias is not None:
        scores = scores + bias.reshape(-1, kv_heads, heads // kv_heads, *bias.shape[-2:])
    scores = scores + jnp.where(mask, 0.0, MASKED)[:, None, None]
    peaks = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - peaks)
    totals = jnp.sum(weights, axis=-1, keepdims=True)
    attended = jnp.einsum(
        "bkglm,bkmc->bkglc",
        weights.astype(query.dtype),
        kv.values,
        preferred_element_type=jnp.float32,
    )
    attended = (attended / totals).astype(query.dtype).reshape(batch, heads, length, head_dim)
    named: Array = checkpoint_name(attended, "attention")
    return named


def cached_attention(
    query: Float[Array, "B H L C"],
    kv: KeyValues,
    positions: Int[Array, "B L"],
    *,
    window: int | Int[Array, ""],
    scale: float,
    cap: float | None,
) -> Float[Array, "B H L C"]:
    """Compute attention to the slots of a cache up to each token's own.

    A CPU reads the slots block by block, no more than the longest row has, and normalizes at the end (Dao et al. 2022,
    section 3.1): the room that rows have and do not use costs nothing.

    Args:
      query: queries of tokens whose keys and values are in the cache, not scaled yet.
      kv: keys and values of all slots.
      positions: of the tokens.
      window: positions that a token attends to, its own included.
      scale: factor of the scores.
      cap: soft cap of the scores; None for none.
    """
    slots = kv.slots
    if slots <= CACHE_BLOCK or platform() != "cpu":
        mask = decode_mask(positions, jnp.arange(slots), window)
        return dot_product_attention(query, kv, mask, scale=scale, cap=cap)
    batch, heads, length, head_dim = query.shape
    kv_heads = kv.keys.shape[1]
    grouped = (query * scale).reshape(batch, kv_heads, heads // kv_heads, length, head_dim)

    def attend(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        first, peaks, totals, attended = state
        start = jnp.minimum(first, slots - CACHE_BLOCK)  # the last block overlaps the one before it
        keys, values = (jax.lax.dynamic_slice_in_dim(part, start, CACHE_BLOCK, axis=2) for part in kv)
        numbers = start + jnp.arange(CACHE_BLOCK)
        mask = decode_mask(positions, numbers, window) & (numbers >= first)[None, None]
        scores = softcap(jnp.einsum("bkglc,bkmc->bkglm", grouped, keys, preferred_element_type=jnp.float32), cap)
        scores = scores + jnp.where(mask, 0.0, MASKED)[:, None, None]
        new_peaks = jnp.maximum(peaks, jnp.max(scores, axis=-1, keepdims=True))
        weights, kept = jnp.exp(scores - new_peaks), jnp.exp(peaks - new_peaks)
        products = jnp.einsum(
            "bkglm,bkmc->bkglc", weights.astype(query.dtype), values, preferred_element_type=jnp.float32
        )
        totals = totals * kept + jnp.sum(weights, axis=-1, keepdims=True)
        return first + CACHE_BLOCK, new_peaks, totals, attended * kept + products

    zeros = jnp.zeros(grouped.shape, jnp.float32)
    last = jnp.max(positions)
    state = (jnp.zeros((), jnp.int32), jnp.full_like(zeros[..., :1], MASKED), zeros[..., :1], zeros)
    _, _, totals, attended = jax.lax.while_loop(lambda state: state[0] <= last, attend, state)
    return (attended / totals).astype(query.dtype).reshape(query.shape)


class Attention(nnx.Module):
    """The four projections of multi-head attention with grouped key-value heads."""

    def __init__(
        self,
        model_dim: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        rngs: nnx.Rngs,
        query_scale: float = 1.0,
        bias: bool = False,
    ) -> None:
        """Initialize the projections.

        Args:
          model_dim: channels of the inputs and of the output.
          heads: query heads.
          kv_heads: key-value heads.
          head_dim: channels of a head.
          rngs: keys of the initial values.
          query_scale: factor of the initial queries.
          bias: whether queries, keys and values have a bias.
        """
        self.heads, self.kv_heads = heads, kv_heads
        key_axes = {"kv_heads": kv_heads, "head": head_dim}
        query_axes = {"heads": heads, "head": head_dim}
        self.query = Linear({"embed": model_dim}, query_axes, rngs=rngs, scale=query_scale, bias=bias)
        self.key = Linear({"embed": model_dim}, key_axes, rngs=rngs, bias=bias)
        self.value = Linear({"embed": model_dim}, key_axes, rngs=rngs, bias=bias)
        self.output = Linear(query_axes, {"embed": model_dim}, rngs=rngs)

    def queries(self, x: Float[Array, "B L D"], key: Key[Array, ""] | None = None) -> Float[Array, "B H L C"]:
        """Return the queries of every position. Here and below `key` is for the adapters' dropout."""
        projected = checkpoint_name(self.query(x, key), "projections")
        return constrain(split_heads(projected, self.heads), ("batch", "heads", "length", "head"))

    def keys_values(self, x: Float[Array, "B M D"], key: Key[Array, ""] | None = None) -> KeyValues:
        """Return the keys and values of every position; each device holds those of whole rows, for its queries."""
        whole_rows = ("batch", "kv_heads", None, "head")
        projections = zip((self.key, self.value), split_key(key, 2), strict=True)
        projected = (checkpoint_name(part(x, key), "projections") for part, key in projections)
        keys, values = (split_heads(part, self.kv_heads) for part in projected)
        return KeyValues(constrain(keys, whole_rows), constrain(values, whole_rows))

    def project_output(
        self, attended: Float[Array, "B H L C"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L D"]:
        """Project from heads back to model_dim."""
        batch, _, length, _ = attended.shape
        flat = attended.transpose(0, 2, 1, 3).reshape(batch, length, -1)
        projected: Array = checkpoint_name(self.output(flat, key), "projections")
        return projected


def split_heads(x: Float[Array, "B L E"], heads: int) -> Float[Array, "B heads L C"]:
    """Reshape [batch, length, heads · head_dim] to [batch, heads, length, head_dim]."""
    batch, length, _ = x.shape
    return x.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)
