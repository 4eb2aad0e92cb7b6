"""Low-rank adapters (Hu et al. 2021): add them to a network's linear maps, and compute what they add to a kernel."""

import re
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from coi_jax.common.errors import UserError
from coi_jax.config.model import LoraConfig
from coi_jax.models.layers import Linear


def add_adapters(module: nnx.Module, lora: LoraConfig, *, rngs: nnx.Rngs) -> None:
    """Add adapters to the linear maps of a network that `lora.targets` matches.

    Args:
      module: the network, which is changed in place.
      lora: the config of the adapters.
      rngs: of the adapters' random parameters.

    Raises:
      UserError: it matches none, or something that is not a linear map, or the rank is above that of all kernels.
    """
    linear = linear_maps(module)
    chosen = [name for name, _ in _parts(module) if re.search(rf"(?:{lora.targets})(?![^.])", name)]
    others = [name for name in chosen if name not in linear]
    if others or not chosen:
        wrong = f"matches {', '.join(others)}, not linear" if others else "matches nothing"
        raise UserError("config.lora.targets", lora.targets, f"{wrong}; the linear maps are {', '.join(linear)}")
    _check_rank({name: linear[name].sides for name in chosen}, lora.rank)
    for name in chosen:
        linear[name].add_adapter(lora, rngs)


def _check_rank(sides: Mapping[str, tuple[int, int]], rank: int) -> None:
    """Raise UserError where adapters have a larger rank than any matrix; some may be smaller, as keys of few heads.

    Args:
      sides: inputs and outputs of the linear maps that get adapters, by name.
      rank: of the adapters.
    """
    name = max(sides, key=lambda each: min(sides[each]))
    if rank > min(sides[name]):
        inputs, outputs = sides[name]
        hint = f"no matrix has it: {name}, the largest, is {inputs} × {outputs}; give at most {min(sides[name])}"
        raise UserError("config.lora.rank", rank, hint)


def linear_maps(module: nnx.Module) -> dict[str, Linear]:
    """Return a network's linear maps by their dotted names; those of a stack of layers are one."""
    return {name: part for name, part in _parts(module) if isinstance(part, Linear)}


def _parts(module: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """Yield the modules that have parameters of their own, with dotted names."""
    for path, part in nnx.iter_modules(module):
        if any(isinstance(value, nnx.Param) for value in vars(part).values()):
            yield ".".join(map(str, path)), part


def lora_delta(
    a: Float[Array, "*stack_inputs R"], b: Float[Array, "*stack_outputs"], scaling: float, *, stacked: bool
) -> Float[Array, "..."]:
    """Return the kernel that is equivalent to an adapter, or the kernels to a stack of adapters.

    Args:
      a: [(layers,) inputs…, rank].
      b: [(layers,) rank, outputs…].
      scaling: factor of the product.
      stacked: whether the first axes are layers.
    """
    if stacked:
        layers, rank = a.shape[0], a.shape[-1]
        delta = jnp.matmul(a.reshape(layers, -1, rank), b.reshape(layers, rank, -1), precision="highest")
        return scaling * delta.reshape(*a.shape[:-1], *b.shape[2:])
    return scaling * jnp.tensordot(a, b, axes=1, precision="highest")
