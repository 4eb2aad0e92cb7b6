"""Parameters and caches of a stack of layers, held as one stacked array or as one array for each layer.

Training scans over stacked arrays. A CPU that decodes would copy a layer's slice of a stacked array each time it reads
it: all weights and the whole cache, for every token. There layers are unstacked, and the loop over them is unrolled.
This module alone knows in which of the two forms a tree is: networks and caches scan, read and write layers through it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coi_jax.parallel.hardware import platform

Carry = TypeVar("Carry")
Step = Callable[[Carry, Any], tuple[Carry, Any]]
LayerIndex = Int[Array, ""] | np.integer  # a numpy integer where the loop over layers is unrolled


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Unstacked:
    """The layers of what was one stacked array."""

    layers: tuple[Any, ...]

    def replace(self, layer: int, array: Any) -> "_Unstacked":
        """Return the same with another array for a layer."""
        return _Unstacked((*self.layers[:layer], array, *self.layers[layer + 1 :]))


def default_unroll(layers: int) -> int:
    """Return how many of a stack's layers run in one iteration of the loop over them.

    All on a CPU, where an iteration copies its layer's parameters and gradients out of and into their stacks. Elsewhere
    one, which compiles in the same time however many layers there are.
    """
    return layers if platform() == "cpu" else 1


def unstack(stack: Any) -> Any:
    """Return the layers of a stacked parameter, which is an array or a quantized one, as one array for each layer."""
    count = len(jax.tree.leaves(stack)[0])
    return _Unstacked(tuple(jax.tree.map(lambda leaf: leaf[layer], stack) for layer in range(count)))  # noqa: B023


def map_stacks(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree with `function`, which takes and returns a stacked array, applied to every stack.

    It is applied to each unstacked layer as a stack of one, so it must treat layers alike.
    """
    return _map(lambda node: _Unstacked(tuple(function(layer[None])[0] for layer in node.layers)), function, tree)


def read_layer(stack: Any, layer: LayerIndex) -> Float[Array, "..."]:
    """Return one layer of a stack."""
    if isinstance(stack, _Unstacked):
        found: Array = stack.layers[int(layer)]
    else:
        found = jax.lax.dynamic_index_in_dim(stack, layer, keepdims=False)
    return found


def update_layer(
    stack: Any, layer: LayerIndex, update: Float[Array, "batch heads tokens head"], start: Int[Array, "batch"]
) -> Any:
    """Return a stack of [batch, heads, slots, head] with some slots of each row of one layer replaced.

    Args:
      stack: one array for all layers, or one for each.
      layer: the layer to write to.
      update: the values of the slots.
      start: the first of these slots in each row.
    """
    if isinstance(stack, _Unstacked):
        whole = stack.layers[int(layer)]
        return stack.replace(int(layer), _write_rows(whole[None], jnp.zeros_like(start), update, start)[0])
    return _write_rows(stack, jnp.full_like(start, layer), update, start)


def _write_rows(
    stack: Float[Array, "layers batch heads slots head"],
    layers: Int[Array, "batch"],
    update: Float[Array, "batch heads tokens head"],
    start: Int[Array, "batch"],
) -> Float[Array, "layers batch heads slots head"]:
    """Scatter with rows as a dimension of batches, so that devices that hold rows write their own."""
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2, 3),
        inserted_window_dims=(0,),
        scatter_dims_to_operand_dims=(0, 3),
        operand_batching_dims=(1,),
        scatter_indices_batching_dims=(0,),
    )
    indices = jnp.stack([layers, start], axis=1)
    written: Array = jax.lax.scatter(
        stack, indices, update, dimensions, unique_indices=True, mode=jax.lax.GatherScatterMode.CLIP
    )
    return written


def is_unstacked(tree: Any) -> bool:
    """Return whether a tree has unstacked layers."""
    return any(map(_is_unstacked, jax.tree.leaves(tree, is_leaf=_is_unstacked)))


def scan(
    step: Step[Carry], carry: Carry, layers: Any, *, unroll: int, remat: Callable[[Step[Carry]], Step[Carry]]
) -> tuple[Carry, Any]:
    """Run `step(carry, layer) -> (carry, output)` over layers, as `lax.scan` does.

    Args:
      step: the work of one layer.
      carry: what flows from layer to layer.
      layers: a tree of stacks and of arrays with one entry per layer on their first axis.
      unroll: layers in one iteration of the loop.
      remat: wraps the step for the backward pass. Unstacked layers are decoded, never differentiated, and have none.
    """
    nodes = jax.tree.leaves(layers, is_leaf=_is_unstacked)
    count = next((len(node.layers) for node in nodes if _is_unstacked(node)), None)
    if count is None:
        return jax.lax.scan(remat(step), carry, layers, unroll=unroll)
    outputs = []
    for layer in range(count):
        carry, output = step(carry, _map(lambda node: node.layers[layer], lambda leaf: leaf[layer], layers))  # noqa: B023
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def _is_unstacked(node: Any) -> bool:
    return isinstance(node, _Unstacked)


def _map(on_unstacked: Callable[[_Unstacked], Any], on_stacked: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree with one function applied to its unstacked nodes, and another to its other leaves."""
    return jax.tree.map(
        lambda node: on_unstacked(node) if _is_unstacked(node) else on_stacked(node), tree, is_leaf=_is_unstacked
    )
