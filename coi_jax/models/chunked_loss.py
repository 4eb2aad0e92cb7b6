"""Compute the loss chunk by chunk of a device's positions, so that the logits of a whole batch never exist.

Dimensions: B rows, L length, D model_dim, V vocabulary; of one device N positions, of one chunk P.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, custom_vjp_primal_tree_values
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Real

from coi_jax.models.losses import LossSums, loss_sums
from coi_jax.parallel.sharding import activation_spec, spec_axes

# Logits of hidden states; the first argument holds the parameters of the output layer.
Unembed = Callable[[Any, Float[Array, "1 P D"]], Float[Array, "1 P V"]]
Positions = tuple[Array, ...]  # hidden states, targets and weights, [N, …] or [chunks, P, …]


def chunked_loss_sums(
    unembed: Unembed,
    head: Any,
    hidden: Float[Array, "B L D"],
    targets: Int[Array, "B L"],
    weights: Real[Array, "B L"],
    chunk: int,
) -> LossSums:
    """Return `loss_sums` of the logits of hidden states, of which only one chunk exists at a time.

    Positions stay on the device that holds them. The output layer is gathered to it once, in the dtype of `hidden`, and
    its gradient is summed over devices once, after the last chunk.

    Args:
      unembed: the output layer.
      head: its parameters.
      hidden: the last hidden states.
      targets: the token after each position.
      weights: of the loss of each target; 0 where there is none.
      chunk: positions of a device whose logits exist at once.
    """
    head = _in_dtype(head, hidden.dtype)
    spec = activation_spec(targets.shape, ("batch", "length"))
    axes = spec_axes(spec)

    def device_sums(head: Any, *rows: Array) -> LossSums:
        positions = (part.reshape(-1, *part.shape[2:]) for part in rows)
        sums = _in_chunks(unembed, chunk, axes)(_varying(head, axes), *positions)
        stacked: LossSums = jax.tree.map(lambda leaf: leaf[None], sums)
        return stacked

    if not axes:
        sums: LossSums = jax.tree.map(jnp.sum, device_sums(head, hidden, targets, weights))
        return sums
    sharded_sums = jax.shard_map(
        device_sums, in_specs=(PartitionSpec(), spec, spec, spec), out_specs=PartitionSpec(axes), axis_names={*axes}
    )
    sums = jax.tree.map(jnp.sum, sharded_sums(head, hidden, targets, weights))
    return sums


def _in_dtype(head: Any, dtype: jnp.dtype) -> Any:
    """Cast the matrices to the compute dtype; a quantized one stays as it is, with its scales."""
    leaves = jax.tree.leaves(head)
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        return head
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, head)


def _varying(tree: Any, axes: tuple[str, ...]) -> Any:
    """Mark a tree as varying along some mesh axes, so that each device there has a gradient of its own."""
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axes, to="varying"), tree) if axes else tree


def _in_chunks(unembed: Unembed, chunk: int, axes: tuple[str, ...]) -> Callable[..., LossSums]:
    """Return `loss_sums` as a function of the output layer and of N positions.

    In differentiation the forward pass computes the gradient with the loss, to whose cotangent it is proportional: no
    logits are computed twice (as in Liger's fused cross entropy, Hsu et al. 2024). The gradient of the output layer, if
    it is trained, is summed in fp32.
    """

    def sums(head: Any, part: Positions) -> LossSums:
        hidden, targets, weights = part
        return loss_sums(unembed(head, hidden[None]), targets[None], weights[None])

    @jax.custom_vjp
    def total(head: Any, *positions: Array) -> LossSums:
        _, parts = jax.lax.scan(lambda _, part: (None, sums(head, part)), None, _split(positions, chunk))
        return _sum(parts)

    def forward(head: Any, *positions: CustomVJPPrimal) -> tuple[LossSums, Any]:
        trained, frozen = _split_trained(head)
        values = custom_vjp_primal_tree_values(positions)

        def loss(trained: Any, hidden: Array, rest: Any) -> tuple[Array, LossSums]:
            found = sums(_merge(trained, frozen), (hidden, *rest))
            return found.loss, found

        def add(gradient: Any, part: Positions) -> tuple[Any, tuple[LossSums, Array]]:
            hidden, *rest = part
            (_, found), (more, of_hidden) = jax.value_and_grad(loss, (0, 1), has_aux=True)(trained, hidden, rest)
            return jax.tree.map(jnp.add, gradient, _to_float32(more)), (found, of_hidden)

        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), trained)
        of_head, (found, of_hidden) = jax.lax.scan(add, _varying(zeros, axes), _split(values, chunk))
        of_hidden = of_hidden.reshape(-1, of_hidden.shape[-1])[: len(values[0])]
        return _sum(found), (trained, of_head, of_hidden)

    def backward(kept: Any, change: LossSums) -> tuple[Any, Array, None, None]:
        trained, of_head, of_hidden = kept
        of_head = jax.tree.map(lambda leaf, like: (leaf * change.loss).astype(like.dtype), of_head, trained)
        return of_head, (of_hidden * change.loss).astype(of_hidden.dtype), None, None

    total.defvjp(forward, backward, symbolic_zeros=True)
    return total


def _split(positions: Positions, chunk: int) -> Positions:
    """Reshape [N, …] to [chunks, P, …]: as few equal chunks as `chunk` allows, the last padded with weights of 0."""
    count = len(positions[0])
    chunks = -(-count // chunk)
    size = -(-count // chunks)

    def split(part: Array) -> Array:
        missing = chunks * size - count
        padded = jnp.pad(part, [(0, missing), *[(0, 0)] * (part.ndim - 1)]) if missing else part
        return padded.reshape(chunks, size, *part.shape[1:])

    chunked: Positions = jax.tree.map(split, positions)
    return chunked


def _sum(parts: LossSums) -> LossSums:
    total: LossSums = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)
    return total


def _to_float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def _split_trained(head: Any) -> tuple[Any, Any]:
    """Return the parameters that are differentiated, and the others; each tree has None in place of the other's."""

    def is_leaf(node: Any) -> bool:
        return isinstance(node, CustomVJPPrimal)

    trained = jax.tree.map(lambda leaf: leaf.value if leaf.perturbed else None, head, is_leaf=is_leaf)
    frozen = jax.tree.map(lambda leaf: None if leaf.perturbed else leaf.value, head, is_leaf=is_leaf)
    return trained, frozen


def _merge(trained: Any, frozen: Any) -> Any:
    return jax.tree.map(lambda a, b: b if a is None else a, trained, frozen, is_leaf=lambda node: node is None)
