"""Load weights onto a mesh, a layer at a time.

Host memory holds one tensor and its converted copy, whatever the size of the model: a stack of layers is allocated on
the devices that will hold it, and each layer is written into it there.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Int, Shaped

from coi_jax.common.progress import Bar
from coi_jax.models import Network, Params
from coi_jax.parallel import sharding
from coi_jax.runs import checkpoint
from coi_jax.weights.hf_names import ParameterMapping, parameter_mappings
from coi_jax.weights.safetensors_files import Tensor
from coi_jax.weights.sources import WeightSource


def load_params(source: WeightSource, network: Network, mesh: Mesh | None) -> Params:
    """Return all parameters of a network but its adapters, as the network holds them, laid out on a mesh.

    Args:
      source: the weights to read.
      network: holds fp32 parameters where they are trained, and a frozen base as `lora.base_dtype` says.
      mesh: the mesh to lay them out on; the first device where None.
    """
    plain = checkpoint.placed_params(dataclasses.replace(network, lora=None), mesh)
    held = checkpoint.placed_params(network, mesh)
    base = network.split(held)[1] if network.lora else held
    mappings = parameter_mappings(network.config, plain)
    with Bar("reading weights", sum(len(mapping.keys) for mapping in mappings.values())) as bar:

        def load_leaf(path: tuple[Any, ...], plain_leaf: jax.ShapeDtypeStruct, leaf: Any) -> Any:
            mapping = mappings[sharding.path_name(path)]

            def advance() -> None:
                bar.advance(note=mapping.path)

            if isinstance(leaf, jax.ShapeDtypeStruct):
                return load_parameter(source, mapping, leaf, advance)
            hold = functools.partial(network.cast_base_parameter, sharding.keys(path))
            return _load_quantized(source, mapping, leaf, plain_leaf.sharding, hold, advance)

        loaded: Params = jax.tree_util.tree_map_with_path(load_leaf, plain, base)
        return loaded


def load_parameter(
    source: WeightSource,
    mapping: ParameterMapping,
    target: jax.ShapeDtypeStruct,
    advance: Callable[[], None] = lambda: None,
) -> Shaped[Array, "..."]:
    """Return one parameter, read a layer at a time into its place on the devices.

    Args:
      source: the weights to read.
      mapping: the parameter to read.
      target: its shape, with its layers, and the dtype and the sharding to give it.
      advance: called after each layer.
    """
    if not mapping.stacked:
        whole = _put(source.layer(mapping, 0), target.sharding).astype(target.dtype)
        advance()
        return whole
    stack = _zeros(target.shape, target.dtype, target.sharding)()
    filled: Array = _fill(stack, _layer_writer(target.sharding), source, mapping, target.sharding, advance)
    return filled


def _load_quantized(
    source: WeightSource,
    mapping: ParameterMapping,
    target: Any,
    stack_sharding: Sharding,
    hold: Callable[[Array], Any],
    advance: Callable[[], None],
) -> Any:
    """Return one stack, quantized a layer at a time on its devices, which never hold all layers in fp32.

    Args:
      source: the weights to read.
      mapping: the stacked parameter to read.
      target: a tree of shapes, dtypes and shardings: values and scales.
      stack_sharding: the sharding of the stack in fp32.
      hold: quantizes a stack, each layer by itself.
      advance: called after each layer.
    """
    shardings = jax.tree.map(lambda part: part.sharding, target)

    def write(stack: Any, layer: Shaped[Array, "..."], number: Int[Array, ""]) -> Any:
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, number, 0),
            stack,
            hold(layer.astype(jnp.float32)[None]),
        )

    def zeros() -> Any:
        return jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), target)

    write_layer = jax.jit(write, donate_argnums=0, out_shardings=shardings)
    return _fill(jax.jit(zeros, out_shardings=shardings)(), write_layer, source, mapping, stack_sharding, advance)


def _fill(
    stack: Any,
    write_layer: Callable[..., Any],
    source: WeightSource,
    mapping: ParameterMapping,
    stack_sharding: Sharding,
    advance: Callable[[], None],
) -> Any:
    """Return the stack with all its layers written."""
    for number in range(len(mapping.keys)):
        layer = _put(source.layer(mapping, number), _layer_sharding(stack_sharding))
        stack = jax.block_until_ready(write_layer(stack, layer, np.int32(number)))  # or the host would read ahead
        advance()
    return stack


def _put(array: Tensor, sharding: Sharding) -> Shaped[Array, "..."]:
    """Return a host's array on the devices, each of which gets its part, in a dtype that they have."""
    dtype = array.dtype if array.dtype in (np.float32, ml_dtypes.bfloat16) else np.dtype(np.float32)
    return jax.make_array_from_callback(
        array.shape, sharding, lambda part: np.ascontiguousarray(array[part], dtype), dtype=dtype
    )


def _layer_sharding(stack: Sharding) -> Sharding:
    """Return the sharding of one layer of a stack."""
    if isinstance(stack, NamedSharding):
        return NamedSharding(stack.mesh, PartitionSpec(*stack.spec[1:]))
    return stack


@functools.lru_cache(maxsize=256)
def _zeros(shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding) -> Callable[[], Shaped[Array, "..."]]:
    """Return a compiled function that allocates a stack on the devices that will hold it."""
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)


@functools.lru_cache(maxsize=256)
def _layer_writer(sharding: Sharding) -> Callable[..., Shaped[Array, "..."]]:
    """Return a compiled function that writes a layer into a stack, in the stack's own memory."""

    def write(
        stack: Shaped[Array, "layers ..."], layer: Shaped[Array, "..."], number: Int[Array, ""]
    ) -> Shaped[Array, "layers ..."]:
        updated: Array = jax.lax.dynamic_update_index_in_dim(stack, layer.astype(stack.dtype), number, 0)
        return updated

    return jax.jit(write, donate_argnums=0, out_shardings=sharding)
