"""The KV cache of a batch that is being generated.

Shapes are static. The keys and values of a prompt are in slots 0 … length-1, right-padded; the i-th generated token of
every row is written to the same slot after them, and `positions` holds the position of the token in each slot. So a
step writes one slice, wherever each row's own text ends.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coi_jax.models.layer_stacks import LayerIndex, map_stacks, read_layer, unstack, update_layer
from coi_jax.parallel.sharding import LogicalAxes, constrain

EMPTY = -1  # the position of a slot that holds no token of its row


class KeyValues(NamedTuple):
    """Keys and values, heads before slots, so that the products of attention need no transposition."""

    keys: Float[Array, "*layers batch kv_heads slots head"]
    values: Float[Array, "*layers batch kv_heads slots head"]


# Slots are not divided over devices: a step writes the same slot of all rows.
KV_AXES: LogicalAxes = ("layers", "batch", "kv_heads", "slots", "head")


class Cache(NamedTuple):
    """Keys and values of all layers, and the positions of their tokens."""

    self_attention: KeyValues  # [layers, batch, kv_heads, slots, head]
    cross_attention: KeyValues | None  # the encoder's, over prompt slots; None for a decoder alone
    positions: Int[Array, "batch slots"]  # of the tokens in the slots of self-attention, or EMPTY
    cross_valid: Bool[Array, "batch prompt"] | None
    length: Int[Array, "batch"]  # tokens that the row's decoder has read = position of its next token
    slot: Int[Array, ""]  # where the next token of every row is written
    prompt_lengths: Int[Array, "batch"] | None = None  # tokens of the row's prompt, where rotations depend on it

    def next_positions(self) -> Int[Array, "batch slots"]:
        """Return `positions` with one more token of each row in its slot."""
        new = jnp.arange(self.positions.shape[1])[None] == self.slot
        return jnp.where(new, self.length[:, None], self.positions)

    def advance(self, kv: KeyValues, positions: Int[Array, "batch slots"]) -> "Cache":
        """Return the cache after one more token."""
        return self._replace(self_attention=kv, positions=positions, length=self.length + 1, slot=self.slot + 1)


def from_prompt(
    prompt: KeyValues, positions: Int[Array, "batch prompt"], lengths: Int[Array, "batch"], extra: int
) -> Cache:
    """Return the cache of a decoder that has read its prompts.

    Args:
      prompt: keys and values of the prompts.
      positions: of the prompts' tokens, EMPTY in padding.
      lengths: tokens of each prompt.
      extra: free slots for generated tokens.
    """
    slots = jnp.pad(positions, ((0, 0), (0, extra)), constant_values=EMPTY)
    return Cache(allocate(prompt, extra), None, slots, None, lengths, jnp.asarray(positions.shape[1], jnp.int32))


def decode_mask(
    positions: Int[Array, "batch slots"], position: Int[Array, "batch 1"], window: int | None = None
) -> Bool[Array, "batch 1 slots"]:
    """Return True where the next token may attend to a slot: it holds a token, and one within the window.

    Args:
      positions: of the tokens in all slots, or EMPTY.
      position: of the next token of each row.
      window: positions that the token attends to, its own included; None for all.
    """
    in_window = positions > (EMPTY if window is None else position - window)
    return (in_window & (positions != EMPTY))[:, None]


def gather_rows(cache: Cache, indices: Int[Array, "new_batch"]) -> Cache:
    """Return the cache of rows `indices`: reorder, repeat or drop rows of the batch."""
    return constrain_cache(_map(cache, lambda stack: stack[:, indices], lambda rows: rows[indices]))


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
        jax.tree.map(on_rows, cache.positions),
        jax.tree.map(on_rows, cache.cross_valid),
        jax.tree.map(on_rows, cache.length),
        cache.slot,
        jax.tree.map(on_rows, cache.prompt_lengths),
    )


def unstack_layers(cache: Cache) -> Cache:
    """Return the cache with its layers unstacked; `layer_stacks.restack` stacks them again."""
    own, cross = (jax.tree.map(unstack, kv) for kv in (cache.self_attention, cache.cross_attention))
    return cache._replace(self_attention=own, cross_attention=cross)


def allocate(prompt: KeyValues, extra: int) -> KeyValues:
    """Return keys and values with `extra` more slots after those of the prompt."""
    widths = [(0, 0)] * 5
    widths[-2] = (0, extra)
    kv: KeyValues = jax.tree.map(lambda leaf: constrain(jnp.pad(leaf, widths), KV_AXES), prompt)
    return kv


def write(kv: KeyValues, new: KeyValues, layer: LayerIndex, slot: Int[Array, ""]) -> KeyValues:
    """Return `kv` with one token's keys and values written into a slot of a layer.

    Args:
      kv: keys and values of all layers.
      new: keys and values of the token, [batch, kv_heads, 1, head].
      layer: the layer to write to.
      slot: the slot to write to.
    """
    return KeyValues(*(update_layer(stack, layer, one, (0, 0, slot, 0)) for stack, one in zip(kv, new, strict=True)))


def read(kv: KeyValues, layer: LayerIndex) -> KeyValues:
    """Return the keys and values of one layer."""
    return KeyValues(*(read_layer(stack, layer) for stack in kv))
