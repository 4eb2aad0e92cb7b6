"""What a network remembers between the tokens that it generates.

Shapes are static. The keys and values of a prompt lie in slots 0 … length-1, right-padded; the i-th generated
token of every row is written to the same slot after them, and `positions` says what each slot of a row holds. So a
step writes one slice, wherever each row's own text ends.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from coi_jax.models.unstacked import Apart, hold_apart, on_stacks, restack
from coi_jax.parallel.sharding import LogicalAxes, constrain

EMPTY = -1  # the position of a slot that holds nothing of its row
Layer = Int[Array, ""] | np.integer  # a number, known beforehand where layers are held apart


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
    """The cache of rows `indices`: reorders, repeats or drops rows of the batch."""

    def layered(tree: Any) -> Any:
        return on_stacks(lambda leaf: leaf[:, indices], tree)

    def rows(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[indices], tree)

    taken = Cache(
        layered(cache.self_attention),
        layered(cache.cross_attention),
        rows(cache.positions),
        rows(cache.cross_valid),
        rows(cache.length),
        cache.slot,
    )
    return laid_out(taken)


def laid_out(cache: Cache) -> Cache:
    """The cache on the mesh in use: rows divided as those of a batch are, key-value heads as their projections are."""

    def memory(tree: Any) -> Any:
        return on_stacks(lambda leaf: constrain(leaf, MEMORY_AXES), tree)

    def rows(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: constrain(leaf, ("batch", *(None,) * (leaf.ndim - 1))), tree)

    return Cache(
        memory(cache.self_attention),
        memory(cache.cross_attention),
        rows(cache.positions),
        rows(cache.cross_valid),
        rows(cache.length),
        cache.slot,
    )


def layers_apart(cache: Cache) -> Cache:
    """The cache with its layers held apart."""
    own, cross = (jax.tree.map(hold_apart, memory) for memory in (cache.self_attention, cache.cross_attention))
    return cache._replace(self_attention=own, cross_attention=cross)


def layers_stacked(cache: Cache) -> Cache:
    """The cache with its layers in stacks again."""
    own, cross = map(restack, (cache.self_attention, cache.cross_attention))
    return cache._replace(self_attention=own, cross_attention=cross)


def allocate(prompt: KeyValues, extra: int) -> KeyValues:
    """Room for `extra` more slots after those of the prompt."""
    widths = [(0, 0)] * 5
    widths[-2] = (0, extra)
    return jax.tree.map(lambda leaf: constrain(jnp.pad(leaf, widths), MEMORY_AXES), prompt)


def write(memory: KeyValues, new: KeyValues, layer: Layer, slot: Int[Array, ""]) -> KeyValues:
    """Put one token's keys and values ([batch, kv_heads, 1, head]) into a slot of a layer."""

    def put(old: Any, one: Float[Array, "batch kv_heads 1 head"]) -> Any:
        if isinstance(old, Apart):
            return old.put(int(layer), jax.lax.dynamic_update_slice(old[int(layer)], one, (0, 0, slot, 0)))
        return jax.lax.dynamic_update_slice(old, one[None], (layer, 0, 0, slot, 0))

    return KeyValues(*map(put, memory, new))


def read(memory: KeyValues, layer: Layer) -> KeyValues:
    """The keys and values of one layer."""

    def get(stack: Any) -> Float[Array, "batch kv_heads slots head"]:
        if isinstance(stack, Apart):
            return stack[int(layer)]
        return jax.lax.dynamic_index_in_dim(stack, layer, keepdims=False)

    return KeyValues(*map(get, memory))
