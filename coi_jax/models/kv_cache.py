"""The KV cache of a batch that is being generated.

Shapes are static. The keys and values of a row's token are in the slot of its position, so that each row may begin and
end on its own, and a row's result depends on no other row. What slots after a row's last token hold is never read.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from coi_jax.models.layer_stacks import LayerIndex, map_stacks, read_layer, unstack, update_layer
from coi_jax.parallel.sharding import LogicalAxes, constrain


class KeyValues(NamedTuple):
    """Keys and values, heads before slots, so that the products of attention need no transposition."""

    keys: Float[Array, "*layers batch kv_heads slots head"]
    values: Float[Array, "*layers batch kv_heads slots head"]

    @property
    def slots(self) -> int:
        """Return the number of slots."""
        count: int = jax.tree.leaves(self.keys)[0].shape[-2]
        return count


# Slots are not divided over devices: rows write to different ones.
KV_AXES: LogicalAxes = ("layers", "batch", "kv_heads", "slots", "head")


class Cache(NamedTuple):
    """Keys and values of all layers, and how many tokens of each row they belong to."""

    self_attention: KeyValues  # [layers, batch, kv_heads, slots, head]
    cross_attention: KeyValues | None  # the encoder's, over prompt slots; None for a decoder alone
    cross_valid: Bool[Array, "batch prompt"] | None
    length: Int[Array, "batch"]  # tokens that the row's decoder has read = position of its next token
    prompt_lengths: Int[Array, "batch"] | None = None  # tokens of the row's prompt, where rotations depend on it

    @property
    def serves_prefixes(self) -> bool:
        """Return whether a prompt's keys and values are those of any other that begins alike."""
        return self.cross_attention is None and self.prompt_lengths is None


def decode_mask(
    positions: Int[Array, "batch queries"], slots: Int[Array, "slots"], window: int | Int[Array, ""] | None = None
) -> Bool[Array, "batch queries slots"]:
    """Return True where a token may attend to a slot: that of an earlier token or its own, within the window.

    Args:
      positions: of the tokens of each row.
      slots: numbers of slots of the cache.
      window: positions that a token attends to, its own included; None for all.
    """
    query, slot = positions[:, :, None], slots[None, None]
    return slot <= query if window is None else (slot <= query) & (slot > query - window)


def gather_rows(cache: Cache, indices: Int[Array, "new_batch"]) -> Cache:
    """Return the cache of rows `indices`: reorder, repeat or drop rows of the batch."""
    return constrain_cache(_map(cache, lambda stack: stack[:, indices], lambda rows: rows[indices]))


def copy_slots(cache: Cache, rows: Int[Array, "batch"], start: Int[Array, "batch"], count: int) -> Cache:
    """Return the cache with some slots of each row as another row has them, which is the same in all else.

    Args:
      cache: of all rows.
      rows: the row that each row copies.
      start: the first slot that is copied, the same in both rows.
      count: slots that are copied.
    """
    here, slots = jnp.arange(len(rows))[:, None], start[:, None] + jnp.arange(count)[None]

    def copy(stack: Array) -> Array:
        return constrain(stack.at[:, here, :, slots].set(stack[:, rows[:, None], :, slots]), KV_AXES)

    return cache._replace(self_attention=map_stacks(copy, cache.self_attention))


def constrain_cache(cache: Cache) -> Cache:
    """Constrain the cache to its sharding on the mesh in use: rows as those of a batch, heads as their projections."""
    return _map(
        cache,
        lambda stack: constrain(stack, KV_AXES),
        lambda rows: constrain(rows, ("batch", *(None,) * (rows.ndim - 1))),
    )


def _map(cache: Cache, on_stack: Callable[[Array], Array], on_rows: Callable[[Array], Array]) -> Cache:
    """Return a cache with one function applied to keys and values [layers, batch, …], another to arrays [batch, …]."""
    return Cache(
        map_stacks(on_stack, cache.self_attention),
        map_stacks(on_stack, cache.cross_attention),
        jax.tree.map(on_rows, cache.cross_valid),
        jax.tree.map(on_rows, cache.length),
        jax.tree.map(on_rows, cache.prompt_lengths),
    )


def set_rows(cache: Cache, rows: Int[Array, " new"], new: Cache) -> Cache:
    """Return the cache with rows replaced.

    Args:
      cache: of all rows.
      rows: numbers of the rows that are replaced; a number that no row has is left out.
      new: the new content of these rows.
    """

    def on_rows(leaf: Array, part: Array) -> Array:
        return leaf.at[rows].set(part, mode="drop")

    def on_stack(leaf: Array, part: Array) -> Array:
        return leaf.at[:, rows].set(part, mode="drop") if leaf.ndim == len(KV_AXES) else on_rows(leaf, part)

    own, cross = (jax.tree.map(on_stack, cache[field], new[field]) for field in range(2))
    return constrain_cache(Cache(own, cross, *jax.tree.map(on_rows, cache[2:], new[2:])))


def unstack_layers(cache: Cache) -> Cache:
    """Return the cache with its layers unstacked."""
    own, cross = (jax.tree.map(unstack, kv) for kv in (cache.self_attention, cache.cross_attention))
    return cache._replace(self_attention=own, cross_attention=cross)


def empty(shape: tuple[int, int, int, int, int], dtype: DTypeLike) -> KeyValues:
    """Return keys and values of nothing.

    Args:
      shape: the sizes of the axes `KV_AXES`.
      dtype: the dtype of computation.
    """
    return KeyValues(*(constrain(jnp.zeros(shape, dtype), KV_AXES) for _ in range(2)))


def write(kv: KeyValues, new: KeyValues, layer: LayerIndex, start: Int[Array, "batch"]) -> KeyValues:
    """Return `kv` with the keys and values of each row's next tokens written into a layer.

    Args:
      kv: keys and values of all layers.
      new: keys and values of the tokens, [batch, kv_heads, tokens, head].
      layer: the layer to write to.
      start: the slot of the first of these tokens in each row.
    """
    return KeyValues(*(update_layer(stack, layer, one, start) for stack, one in zip(kv, new, strict=True)))


def read(kv: KeyValues, layer: LayerIndex) -> KeyValues:
    """Return the keys and values of one layer."""
    return KeyValues(*(read_layer(stack, layer) for stack in kv))
