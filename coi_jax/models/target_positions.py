"""Keep the positions of a batch that have a target, so that logits are computed for those alone.

Two thirds of a packed row are prompts, whose logits carry no loss. The positions that do are gathered on the device
that holds them, into an array whose size the loader knows in advance.

Dimensions: B rows, L length, D model_dim; of one device N positions, of which C at most have a target.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

from coi_jax.parallel.sharding import activation_spec, spec_axes


def keep_targets(
    hidden: Float[Array, "B L D"], targets: Int[Array, "B L"], weights: Real[Array, "B L"], capacity: int | None
) -> tuple[Float[Array, "parts kept D"], Int[Array, "parts kept"], Real[Array, "parts kept"]]:
    """Return the hidden states, targets and weights of the positions whose weight is not 0, of each device its own.

    The results are laid out as the arguments are: each device has one row of `capacity` positions, in their order and
    then padding of weight 0. They are the arguments themselves where a device has no more positions than that.

    Args:
      hidden: the last hidden states.
      targets: the token after each position.
      weights: of the loss of each target; 0 where there is none.
      capacity: the most targets of one device; None: not known. Targets beyond it are lost.
    """
    spec = activation_spec(targets.shape, ("batch", "length"))
    axes = spec_axes(spec)
    sizes = jax.sharding.get_abstract_mesh().shape
    if capacity is None or capacity * math.prod(sizes[axis] for axis in axes) >= targets.size:
        return hidden, targets, weights

    def keep(*parts: Array) -> tuple[Array, ...]:
        kept = _keep(*(part.reshape(-1, *part.shape[2:]) for part in parts), capacity=capacity)
        return tuple(part[None] for part in kept)

    if axes:
        keep = jax.shard_map(keep, in_specs=(spec, spec, spec), out_specs=(spec, spec, spec), axis_names={*axes})
    kept_hidden, kept_targets, kept_weights = keep(hidden, targets, weights)
    return kept_hidden, kept_targets, kept_weights


def _keep(
    hidden: Float[Array, "N D"], targets: Int[Array, " N"], weights: Real[Array, " N"], *, capacity: int
) -> tuple[Float[Array, "C D"], Int[Array, " C"], Real[Array, " C"]]:
    counts = weights != 0
    positions = jnp.nonzero(counts, size=capacity, fill_value=0)[0]
    slots = jnp.where(counts, jnp.cumsum(counts) - 1, capacity)
    is_padding = jnp.arange(capacity) >= jnp.sum(counts)
    return _take(hidden, positions, slots), targets[positions], jnp.where(is_padding, 0, weights[positions])


@jax.custom_vjp
def _take(hidden: Float[Array, "N D"], positions: Int[Array, " C"], slots: Int[Array, " N"]) -> Float[Array, "C D"]:
    """Return the rows at `positions`. The gradient is gathered too, by the slot of each row, for a scatter is slow."""
    return hidden[positions]


def _take_forward(hidden: Array, positions: Array, slots: Array) -> tuple[Array, Array]:
    return hidden[positions], slots


def _take_backward(slots: Array, change: Array) -> tuple[Array, None, None]:
    return jnp.take(change, slots, axis=0, mode="fill", fill_value=0), None, None


_take.defvjp(_take_forward, _take_backward)
