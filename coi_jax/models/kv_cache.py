"""What a network remembers between the tokens that it generates.

Shapes are static. The keys and values of a prompt lie in slots 0 … length-1, right-padded; the i-th generated
token of every row is written to the same slot after them, and `positions` says what each slot of a row holds. So a
step writes one slice, wherever each row's own text ends.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coi_jax.models.layer_stacks import LayerIndex, map_stacks, read_layer, unstack, update_layer
from coi_jax.parallel.sharding import LogicalAxes, constrain

EMPTY = -1  # the position of a slot that holds nothing of its row


class KeyValues(NamedTuple):
    """Keys and values, heads before slots, so that attention's products need no transposition."""

    keys: Float[Array, "*layers batch kv_heads slots head"]
    values: Float[Array, "*layers batch kv_heads slots head"]


# How they lie on a mesh: a device has the slots of whole rows, since a step writes the same slot of all of them.
MEMORY_AXES: LogicalAxes = ("layers", "batch", "kv_heads", "slots", "head")


class Cache(NamedTuple):
    """The state of a batch that is being generated."""

    self_attention: KeyValues  # [layers, batch, kv_heads, slots, head]
    cross_attention: KeyValues | None  # the encoder's, over prompt slots; None for a decoder alone
    positions: Int[Array, "batch slots"]  # of the tokens in self-attention's slots, or EMPTY
    cross_valid: Bool[Array, "batch prompt"] | None
    length: Int[Array, "batch"]  # tokens seen by the row's decoder = position of its next token
    slot: Int[Array, ""]  # where the next token of every row is written

    def next_positions(self) -> Int[Array, "batch slots"]:
        """The positions once one more token stands in its slot."""
        new = jnp.arange(self.positions.shape[1])[None] == self.slot
        return jnp.where(new, self.length[:, None], self.positions)

    def grown(self, memory: KeyValues, positions: Int[Array, "batch slots"]) -> "Cache":
        """The cache after one more token."""
        return self._replace(self_attention=memory, positions=positions, length=self.length + 1, slot=self.slot + 1)


def begin(prompt: KeyValues, positions: Int[Array, "batch prompt"], lengths: Int[Array, "batch"], extra: int) -> Cache:
    """The cache of a decoder that has read its prompts, with room for `extra` more tokens."""
    room = jnp.pad(positions, ((0, 0), (0, extra)), constant_values=EMPTY)
    return Cache(allocate(prompt, extra), None, room, None, lengths, jnp.asarray(positions.shape[1], jnp.int32))


def visible(
    positions: Int[Array, "batch slots"], position: Int[Array, "batch 1"], window: int
) -> Bool[Array, "batch 1 slots"]:
    """True where the token at `position` may see a slot: not an empty one, nor one that its window leaves behind."""
    seen = positions > (position - window if window else EMPTY)
    return (seen & (positions != EMPTY))[:, None]


def take(cache: Cache, indices: Int[Array, "new_batch"]) -> Cache:
    """Return the cache of rows `indices`: reorders, repeats or drops rows of the batch."""
    return laid_out(_map(cache, lambda stack: stack[:, indices], lambda rows: rows[indices]))


def laid_out(cache: Cache) -> Cache:
    """Return the cache on the mesh in use: rows divided as a batch is, key-value heads as their projections are."""
    return _map(
        cache,
        lambda stack: constrain(stack, MEMORY_AXES),
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
    )


def unstack_layers(cache: Cache) -> Cache:
    """Return the cache with its layers unstacked; `layer_stacks.restack` stacks them again."""
    own, cross = (jax.tree.map(unstack, memory) for memory in (cache.self_attention, cache.cross_attention))
    return cache._replace(self_attention=own, cross_attention=cross)


def allocate(prompt: KeyValues, extra: int) -> KeyValues:
    """Room for `extra` more slots after those of the prompt."""
    widths = [(0, 0)] * 5
    widths[-2] = (0, extra)
    return jax.tree.map(lambda leaf: constrain(jnp.pad(leaf, widths), MEMORY_AXES), prompt)


def write(memory: KeyValues, new: KeyValues, layer: LayerIndex, slot: Int[Array, ""]) -> KeyValues:
    """Return `memory` with one token's keys and values written into a slot of a layer.

    Args:
      memory: keys and values of all layers.
      new: keys and values of the token, [batch, kv_heads, 1, head].
      layer: the layer to write to.
      slot: the slot to write to.
    """
    return KeyValues(
        *(update_layer(stack, layer, one, (0, 0, slot, 0)) for stack, one in zip(memory, new, strict=True))
    )


def read(memory: KeyValues, layer: LayerIndex) -> KeyValues:
    """Return the keys and values of one layer."""
    return KeyValues(*(read_layer(stack, layer) for stack in memory))
