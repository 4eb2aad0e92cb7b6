"""The one attention function, its masks, and the projections around it.

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
from coi_jax.models.kv_cache import KeyValues
from coi_jax.models.layers import Linear, softcap, split_key
from coi_jax.parallel.sharding import constrain

MASKED = -1e30  # finite, so that a row with nothing to look at gives numbers and not NaN
SMALLEST_BLOCK = 128  # queries that are computed together
MOST_BLOCKS = 8  # of a row: each is compiled by itself


def causal_mask(length: int) -> Bool[Array, "1 L L"]:
    """True where a key is not later than the query."""
    return jnp.tri(length, dtype=bool)[None]


def segment_mask(queries: Int[Array, "B L"], keys: Int[Array, "B M"]) -> Bool[Array, "B L M"]:
    """True where query and key belong to the same packed example (padding is segment 0)."""
    return queries[:, :, None] == keys[:, None, :]


def length_mask(lengths: Int[Array, "B"], slots: int) -> Bool[Array, "B M"]:
    """True in the first `lengths` slots of each row."""
    return jnp.arange(slots)[None, :] < lengths[:, None]


class AttentionPattern(NamedTuple):
    """Which keys the queries of the same rows may see: of their own example, up to themselves, not too far back."""

    segments: Int[Array, "B L"] | None  # of packed rows (padding is segment 0); None: each row is one example
    window: int = 0  # a query sees so many positions up to its own; 0: all before it

    def first_key(self, query: int) -> int:
        """The first position that a query may see."""
        return max(0, query - self.window + 1) if self.window else 0

    def mask(self, queries: slice, keys: slice) -> Bool[Array, "#B L M"]:
        """True where the query of a row may see the key of a column."""
        row, column = (np.arange(part.start, part.stop) for part in (queries, keys))
        back = row[:, None] - column[None, :]
        seen = jnp.asarray((back >= 0) & (back < self.window if self.window else True))[None]
        return seen if self.segments is None else seen & segment_mask(self.segments[:, queries], self.segments[:, keys])


def attend_rows(
    query: Float[Array, "B H L C"],
    memory: KeyValues,
    sight: AttentionPattern,
    *,
    scale: float,
    cap: float,
    kernel: str = "xla",
) -> Float[Array, "B H L C"]:
    """Causal attention of rows to themselves, by the kernel that `kernels.choose` makes of `kernel`.

    All give the same but for rounding; "xla" takes everything everywhere.
    """
    segments, window = sight

    def by_xla(query: Array, memory: KeyValues, segments: Array | None) -> Array:
        return blockwise_attention(query, memory, AttentionPattern(segments, window), scale=scale, cap=cap)

    chosen = selection.choose(kernel, query, packed=segments is not None, cap=cap)
    if chosen == "splash":
        return splash.attend_rows(query, memory, segments, window=window, scale=scale, cap=cap)
    if chosen == "cudnn":
        return cudnn.attend_rows(query, memory, segments, window=window, scale=scale, otherwise=by_xla)
    return by_xla(query, memory, segments)


def blockwise_attention(
    query: Float[Array, "B H L C"], memory: KeyValues, sight: AttentionPattern, *, scale: float, cap: float
) -> Float[Array, "B H L C"]:
    """Causal attention of rows to themselves, block by block of queries, each with only the keys that it may see.

    Of the scores of a row, about half are later keys, and with a window most are too early: they are never computed.
    Where devices share out the positions of a row there is one block.
    """
    mixed = []
    for queries in blocks(query.shape[2]):
        keys = slice(sight.first_key(queries.start), queries.stop)
        seen = KeyValues(memory.keys[:, :, keys], memory.values[:, :, keys])
        mixed.append(attend(query[:, :, queries], seen, sight.mask(queries, keys), scale=scale, cap=cap))
    return mixed[0] if len(mixed) == 1 else jnp.concatenate(mixed, axis=2)


def blocks(length: int) -> list[slice]:
    """The blocks of queries of a row."""
    mesh = jax.sharding.get_abstract_mesh()
    shared_out = not mesh.empty and mesh.shape.get("sequence", 1) > 1
    size = length if shared_out else max(SMALLEST_BLOCK, -(-length // MOST_BLOCKS))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def attend(
    query: Float[Array, "B H L C"],
    memory: KeyValues,
    mask: Bool[Array, "#B #L M"],
    *,
    scale: float,
    bias: Float[Array, "H #L M"] | None = None,
    cap: float = 0.0,
) -> Float[Array, "B H L C"]:
    """Softmax attention (Vaswani et al. 2017, section 3.2), in fp32 between the two products.

    Consecutive groups of H / K query heads share one key-value head (Ainslie et al. 2023). `bias` is added to
    the scores before the softmax, and `cap` bends them before that. The sum that normalises the weights divides the
    mixed values rather than the weights: that saves passes over [L, M] arrays, most of all in the backward pass (Dao
    et al. 2022, section 3.1).
    """
    batch, heads, length, head_dim = query.shape
    kv_heads = memory.keys.shape[1]
    grouped = (query * scale).reshape(batch, kv_heads, heads // kv_heads, length, head_dim)
    scores = jnp.einsum("bkglc,bkmc->bkglm", grouped, memory.keys, preferred_element_type=jnp.float32)
    scores = softcap(scores, cap)
    if bias is not None:
        scores = scores + bias.reshape(1, kv_heads, heads // kv_heads, *bias.shape[1:])
    scores = scores + jnp.where(mask, 0.0, MASKED)[:, None, None]
    peaks = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - peaks)
    totals = jnp.sum(weights, axis=-1, keepdims=True)
    mixed = jnp.einsum(
        "bkglm,bkmc->bkglc",
        weights.astype(query.dtype),
        memory.values,
        preferred_element_type=jnp.float32,
    )
    return checkpoint_name((mixed / totals).astype(query.dtype).reshape(batch, heads, length, head_dim), "attention")


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
        """`query_scale` multiplies the initial queries; queries, keys and values may have a bias."""
        self.heads, self.kv_heads = heads, kv_heads
        key_axes = {"kv_heads": kv_heads, "head": head_dim}
        query_axes = {"heads": heads, "head": head_dim}
        self.query = Linear({"embed": model_dim}, query_axes, rngs=rngs, scale=query_scale, bias=bias)
        self.key = Linear({"embed": model_dim}, key_axes, rngs=rngs, bias=bias)
        self.value = Linear({"embed": model_dim}, key_axes, rngs=rngs, bias=bias)
        self.output = Linear(query_axes, {"embed": model_dim}, rngs=rngs)

    def queries(self, x: Float[Array, "B L D"], key: Key[Array, ""] | None = None) -> Float[Array, "B H L C"]:
        """The queries of every position. Here and below `key` is of the adapters' dropout."""
        projected = checkpoint_name(self.query(x, key), "projections")
        return constrain(split_heads(projected, self.heads), ("batch", "heads", "length", "head"))

    def keys_values(self, x: Float[Array, "B M D"], key: Key[Array, ""] | None = None) -> KeyValues:
        """The keys and values of every position; each device holds those of whole rows, for its queries."""
        whole_rows = ("batch", "kv_heads", None, "head")
        projections = zip((self.key, self.value), split_key(key, 2), strict=True)
        projected = (checkpoint_name(part(x, key), "projections") for part, key in projections)
        keys, values = (split_heads(part, self.kv_heads) for part in projected)
        return KeyValues(constrain(keys, whole_rows), constrain(values, whole_rows))

    def join(self, mixed: Float[Array, "B H L C"], key: Key[Array, ""] | None = None) -> Float[Array, "B L D"]:
        """Project from heads back to model_dim."""
        batch, _, length, _ = mixed.shape
        flat = mixed.transpose(0, 2, 1, 3).reshape(batch, length, -1)
        return checkpoint_name(self.output(flat, key), "projections")


def split_heads(x: Float[Array, "B L E"], heads: int) -> Float[Array, "B heads L C"]:
    """[batch, length, heads · head] to [batch, heads, length, head]."""
    batch, length, _ = x.shape
    return x.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)
