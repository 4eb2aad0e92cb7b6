"""Optimizers and learning-rate schedules: their registries, and their construction from a config.

To add an optimizer, add its function to `OPTIMIZERS`; its keyword arguments are its `config.optimizer.options`.
To add a schedule, add its function to `SCHEDULES`.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from coi_jax.common.errors import UserError, nearest
from coi_jax.config.run import OptimizerConfig
from coi_jax.parallel.sharding import keys

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]

# The schedule after warm-up: its functions take the peak and the number of steps after which it would be 0.
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    # As optax.linear_schedule but for its last bit, by which the recorded results would differ after many steps.
    "linear": lambda peak, steps: lambda step: peak * (1.0 - jnp.clip(step / steps, 0.0, 1.0)),
    "cosine": optax.cosine_decay_schedule,
    "constant": lambda peak, steps: optax.constant_schedule(peak),
}


def make_schedule(config: OptimizerConfig, steps: int) -> Schedule:
    """Return the learning rate of step 0 … `steps` - 1.

    It rises linearly over the first ceil(warmup_ratio · steps) steps, from a first step above 0 to the peak, and then
    follows the config's schedule, which would be 0 at step `steps`, the first that is not taken.

    Raises:
      UserError: there is no such schedule; the nearest name is given.
    """
    if config.schedule not in SCHEDULES:
        raise UserError("config.optimizer.schedule", config.schedule, nearest(config.schedule, list(SCHEDULES)))
    warmup = math.ceil(config.warmup_ratio * steps)
    share = SCHEDULES[config.schedule](1.0, max(steps - warmup, 1))  # of the peak
    if warmup:
        share = optax.join_schedules([lambda step: (step + 1) / warmup, share], [warmup])
    return lambda step: jnp.asarray(config.learning_rate * share(step), jnp.float32)


def scale_by_adamw(*, b1: float, b2: float, epsilon: float) -> optax.GradientTransformation:
    """Return the update of AdamW (Loshchilov & Hutter 2019), before weight decay and learning rate.

    Args:
      b1: decay of the mean of the gradients.
      b2: decay of the mean of their squares.
      epsilon: added to the denominator.

    Raises:
      UserError: a decay is not at least 0 and below 1, or `epsilon` is negative.
    """
    for name, decay in (("b1", b1), ("b2", b2)):
        if not 0 <= decay < 1:
            raise UserError(f"config.optimizer.options.{name}", decay, "should be at least 0 and below 1")
    if not epsilon >= 0:
        raise UserError("config.optimizer.options.epsilon", epsilon, "should be at least 0")
    return optax.scale_by_adam(b1, b2, epsilon)


def scale_by_adafactor() -> optax.GradientTransformation:
    """Return the update of Adafactor (Shazeer & Stern 2018), before weight decay and learning rate.

    It has no momentum and the paper's constants: update clipping at 1 and steps relative to the parameter's RMS. A
    stack of layers is one parameter here, so its layers share their RMS.
    """
    return optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
    )


# The update of each optimizer, before weight decay and learning rate, from its options.
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": scale_by_adamw,
    "adafactor": scale_by_adafactor,
}


def make_optimizer(config: OptimizerConfig, schedule: Schedule, logical_axes: Any) -> optax.GradientTransformation:
    """Return clipping by the global norm, the config's optimizer, decoupled weight decay, and the learning rate.

    Weights are decayed by learning rate · weight_decay, matrices only (`decay_mask`).

    Args:
      config: the optimizer's.
      schedule: the learning rate of each step.
      logical_axes: of the parameters, a tree of tuples.

    Raises:
      UserError: there is no such optimizer, or it does not have these options.
    """
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm is not None else []
    decay = optax.add_decayed_weights(config.weight_decay, decay_mask(logical_axes))
    return optax.chain(*clip, scale_update(config), decay, optax.scale_by_learning_rate(schedule))


def scale_update(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return the update of the config's optimizer, before weight decay and learning rate.

    Raises:
      UserError: there is no such optimizer, or an option of it is missing or unknown; it is named.
    """
    if config.name not in OPTIMIZERS:
        raise UserError("config.optimizer.name", config.name, nearest(config.name, list(OPTIMIZERS)))
    optimizer = OPTIMIZERS[config.name]
    options = list(inspect.signature(optimizer).parameters)
    for option, value in config.options.items():
        if option not in options:
            none = f"{config.name} has no options; set optimizer.options to {{}}"
            hint = nearest(option, options) if options else none
            raise UserError(f"config.optimizer.options.{option}", value, hint)
    for option in options:
        if option not in config.options:
            hint = f"is an option of {config.name}; add it to options"
            raise UserError(f"config.optimizer.options.{option}", "missing", hint)
    return optimizer(**config.options)


def check_optimizer(config: OptimizerConfig) -> None:
    """Raise UserError where the optimizer, one of its options or the schedule is unknown, or an option is missing."""
    make_schedule(config, 1)
    scale_update(config)


def decay_mask(logical_axes: Any) -> Any:
    """Return True for matrices: parameters of two named axes or more besides `layers`.

    Norms, biases and relative position biases are not decayed.
    """

    def is_matrix(path: tuple[Any, ...], axes: tuple[str | None, ...]) -> bool:
        named = [axis for axis in axes if axis not in (None, "layers")]
        is_bias = keys(path)[-1] == "bias" or "buckets" in named  # that of heads has two axes
        return len(named) >= 2 and not is_bias

    return jax.tree_util.tree_map_with_path(is_matrix, logical_axes, is_leaf=lambda node: isinstance(node, tuple))
