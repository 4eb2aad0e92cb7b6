"""Optimizers and learning-rate schedules from their config."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from coi_jax.config.run import OptimizerConfig
from coi_jax.parallel.sharding import keys

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


def make_schedule(config: OptimizerConfig, steps: int) -> Schedule:
    """The learning rate of step 0 … `steps` - 1.

    It rises in equal parts over the first ceil(warmup_ratio · steps) steps, none of which is wasted on a rate of 0,
    and then falls as the config says; it would be 0 at step `steps`, the first that is not taken.
    """
    warmup = math.ceil(config.warmup_ratio * steps)

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        rising = (step + 1) / max(warmup, 1)
        done = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        falling = {
            "linear": 1.0 - done,
            "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * done)),
            "constant": jnp.ones_like(done),
        }
        return config.learning_rate * jnp.where(step < warmup, rising, falling[config.schedule])

    return rate


def decay_mask(logical_axes: Any) -> Any:
    """True for matrices: parameters of two named axes or more besides `layers`. Norms, biases and relative position
    biases are not decayed.
    """

    def is_matrix(path: tuple[Any, ...], axes: tuple[str | None, ...]) -> bool:
        named = [axis for axis in axes if axis not in (None, "layers")]
        is_bias = keys(path)[-1] == "bias" or "buckets" in named  # that of heads has two axes
        return len(named) >= 2 and not is_bias

    return jax.tree_util.tree_map_with_path(is_matrix, logical_axes, is_leaf=lambda node: isinstance(node, tuple))


def make_optimizer(config: OptimizerConfig, schedule: Schedule, logical_axes: Any) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW (Loshchilov & Hutter 2019) or Adafactor (Shazeer & Stern 2018).

    Both decay weights by learning rate · weight_decay, matrices only (`decay_mask`).
    """
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    scale = _adam(config) if config.name == "adamw" else _adafactor()
    decay = optax.add_decayed_weights(config.weight_decay, decay_mask(logical_axes))
    return optax.chain(*clip, scale, decay, optax.scale_by_learning_rate(schedule))


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(**{name.replace("epsilon", "eps"): value for name, value in config.options.items()})


def _adafactor() -> optax.GradientTransformation:
    """Without momentum, with the paper's constants: update clipping at 1 and steps relative to the parameter's RMS.

    A stack of layers is one parameter here, so its layers share their RMS.
    """
    return optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
    )
