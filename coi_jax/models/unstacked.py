"""Stacks of layers held apart: as one array a layer, where layers are not looped over.

A CPU copies a layer's slice of a stack each time that it reads it: of all weights and the whole cache, for each token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Apart:
    """The layers of a stacked array."""

    layers: tuple[Any, ...]

    def __getitem__(self, layer: int) -> Any:
        return self.layers[layer]

    def __len__(self) -> int:
        return len(self.layers)

    def put(self, layer: int, array: Any) -> "Apart":
        """With another array for a layer."""
        return Apart((*self.layers[:layer], array, *self.layers[layer + 1 :]))

    def each(self, function: Callable[[Any], Any]) -> "Apart":
        """What `function`, which is written for a stack, makes of every layer."""
        return Apart(tuple(function(layer[None])[0] for layer in self.layers))


def is_apart(node: Any) -> bool:
    """For `is_leaf` of tree functions."""
    return isinstance(node, Apart)


def hold_apart(stack: Any) -> Apart:
    """The layers of a stacked array, or of a tree of them that is one parameter."""
    count = len(jax.tree.leaves(stack)[0])
    return Apart(tuple(layer_of(stack, layer) for layer in range(count)))


def restack(tree: Any) -> Any:
    """A tree with stacks again in place of layers held apart."""
    return jax.tree.map(lambda node: jnp.stack(node.layers) if is_apart(node) else node, tree, is_leaf=is_apart)


def layer_of(tree: Any, layer: int) -> Any:
    """A layer of every stack of a tree, held apart or not."""
    return jax.tree.map(lambda node: node[layer], tree, is_leaf=is_apart)


def on_stacks(function: Callable[[Any], Any], tree: Any) -> Any:
    """What `function`, which is written for a stack, makes of every stack of a tree, held apart or not."""
    return jax.tree.map(lambda node: node.each(function) if is_apart(node) else function(node), tree, is_leaf=is_apart)
