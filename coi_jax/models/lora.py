"""Low-rank adapters on a network's linear maps (Hu et al. 2021): where they stand, and what they are when folded in."""

import re
from collections.abc import Iterator

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from coi_jax.common.errors import UserError
from coi_jax.config.model import LoraConfig
from coi_jax.models.layers import Linear


def adapt(module: nnx.Module, lora: LoraConfig, *, rngs: nnx.Rngs) -> None:
    """Puts adapters on the linear maps of a network that `lora.targets` names.

    Raises:
      UserError: it names none, or something that is not a linear map.
    """
    linear = linear_maps(module)
    chosen = [name for name, _ in _parts(module) if re.search(rf"(?:{lora.targets})(?![^.])", name)]
    others = [name for name in chosen if name not in linear]
    if others or not chosen:
        wrong = f"matches {', '.join(others)}, not linear" if others else "matches nothing"
        raise UserError("config.lora.targets", lora.targets, f"{wrong}; the linear maps are {', '.join(linear)}")
    for name in chosen:
        linear[name].adapt(lora, rngs)


def linear_maps(module: nnx.Module) -> dict[str, Linear]:
    """A network's linear maps by their dotted names; those of a stack of layers are one."""
    return {name: part for name, part in _parts(module) if isinstance(part, Linear)}


def _parts(module: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """The modules that have parameters of their own, with dotted names."""
    for path, part in nnx.iter_modules(module):
        if any(isinstance(value, nnx.Param) for value in vars(part).values()):
            yield ".".join(map(str, path)), part


def product(
    a: Float[Array, "*stack_inputs R"], b: Float[Array, "*stack_outputs"], scaling: float, *, stacked: bool
) -> Float[Array, "..."]:
    """What adapters add to kernels: A [(layers,) inputs…, rank] times B [(layers,) rank, outputs…], scaled."""
    if stacked:
        layers, rank = a.shape[0], a.shape[-1]
        added = jnp.matmul(a.reshape(layers, -1, rank), b.reshape(layers, rank, -1), precision="highest")
        return scaling * added.reshape(*a.shape[:-1], *b.shape[2:])
    return scaling * jnp.tensordot(a, b, axes=1, precision="highest")
