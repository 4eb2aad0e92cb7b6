"""Meshes, and the one table that says which mesh axes divide which logical axes.

Mesh axes: `replica` (between slices: copies that share only gradients), `fsdp` (divides parameters and batch rows),
`tensor` (divides heads, MLP and vocabulary), `sequence` (divides the positions of a row).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from coi_jax.common.errors import UserError, nearest
from coi_jax.config.run import MeshConfig

MESH_AXES = ("replica", "fsdp", "tensor", "sequence")
LogicalAxes = tuple[str | None, ...]
AnyMesh = Mesh | AbstractMesh  # an abstract one has sizes and no devices

PARAMETER_RULES: dict[str, tuple[str, ...]] = {
    "layers": (),
    "vocabulary": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head": (),
    "mlp": ("tensor",),
    "buckets": (),
    "rank": (),
}

# Activations leave `embed` whole: their rows already take the fsdp axis.
ACTIVATION_RULES: dict[str, tuple[str, ...]] = {
    "layers": (),
    "batch": ("replica", "fsdp"),
    "length": ("sequence",),
    "slots": (),
    "vocabulary": ("tensor",),
    "embed": (),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head": (),
    "mlp": ("tensor",),
}

# A parameter of as many elements in each layer must be divided where the mesh divides parameters at all; norms stay
# below, however many layers are stacked.
LARGE = 2**17


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Return the mesh of a config over `devices` (all there are); the axis that is -1 takes what the others leave.

    Raises:
      UserError: the product of the axes is not the number of devices, or slices of a TPU do not divide `replica`.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = config.sizes(len(devices))
    return Mesh(arrange(sizes, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def abstract_mesh(replica: int = 1, fsdp: int = 1, tensor: int = 1, sequence: int = 1) -> AbstractMesh:
    """Return a mesh without devices, to compute the layout of arrays on it.

    Args:
      replica: size of the axis between slices.
      fsdp: size of the axis that divides parameters and rows.
      tensor: size of the axis that divides heads, MLP and vocabulary.
      sequence: size of the axis that divides positions.
    """
    return AbstractMesh((replica, fsdp, tensor, sequence), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def arrange(sizes: tuple[int, ...], devices: list[Any]) -> np.ndarray:
    """Order devices: neighbors in the mesh are neighbors in the chips' network, and slices differ in `replica`."""
    slices = len({device.slice_index for device in devices}) if hasattr(devices[0], "slice_index") else 1
    replica, *within = sizes
    if replica % slices == 0 and slices > 1:
        inner, outer = (replica // slices, *within), (slices, *[1] * len(within))
        return mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)
    if slices > 1 and devices[0].platform == "tpu":
        hint = f"the devices are of {slices} slices, between which only `replica` lies: make it a multiple of that"
        raise UserError("config.mesh.replica", replica, hint)
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def data_parallel(mesh: AnyMesh) -> int:
    """Return the number of parts into which the mesh divides the rows of a batch."""
    return math.prod(mesh.shape[axis] for axis in ACTIVATION_RULES["batch"])


def batch_parts(mesh: AnyMesh) -> tuple[int, int]:
    """Return the numbers of parts into which the mesh divides the rows of a batch, and the positions of a row."""
    return data_parallel(mesh), math.prod(mesh.shape[axis] for axis in ACTIVATION_RULES["length"])


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """Return the sharding of every array of a batch, [rows, length]."""
    return NamedSharding(mesh, PartitionSpec(ACTIVATION_RULES["batch"], ACTIVATION_RULES["length"]))


def replicated(mesh: AnyMesh) -> NamedSharding:
    """Return the sharding that has the whole value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shardings(logical_axes: Any, abstract: Any, mesh: AnyMesh) -> Any:
    """Return a NamedSharding for every parameter, and for a quantized one a tree whose scales lie as their channels.

    Where `tensor` is a multiple of the key-value heads, each of its devices holds all of them, as every serving system
    does: their projections are small, and the query heads that share a key-value head lie on several devices.

    Args:
      logical_axes: tree of tuples, one logical name (or None) for each dimension of a parameter.
      abstract: tree of the same structure with leaves that have a `shape`.
      mesh: of `make_mesh`.

    Raises:
      UserError: the mesh does not divide a dimension, or nothing divides a large parameter though the mesh could.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, axes: _parameter_shardings(path_name(path), leaf, axes, mesh),
        abstract,
        logical_axes,
        is_leaf=lambda node: hasattr(node, "shape"),
    )


def _parameter_shardings(name: str, parameter: Any, axes: LogicalAxes, mesh: AnyMesh) -> Any:
    spec = _parameter_spec(name, parameter.shape, axes, mesh)

    def place(part: Any) -> NamedSharding:
        sizes = zip(spec, part.shape, parameter.shape, strict=True)
        return NamedSharding(mesh, PartitionSpec(*(entry if size == whole else None for entry, size, whole in sizes)))

    return jax.tree.map(place, parameter)


def _parameter_spec(name: str, shape: tuple[int, ...], axes: LogicalAxes, mesh: AnyMesh) -> PartitionSpec:
    entries = [() if axis is None else rule(PARAMETER_RULES, axis) for axis in axes]
    shared = [
        axis == "kv_heads" and mesh.shape["tensor"] > size and mesh.shape["tensor"] % size == 0
        for axis, size in zip(axes, shape, strict=True)
    ]
    entries = [() if is_shared else entry for is_shared, entry in zip(shared, entries, strict=True)]
    for dimension, axis, mesh_axes in zip(shape, axes, entries, strict=True):
        parts = math.prod(mesh.shape[mesh_axis] for mesh_axis in mesh_axes)
        if dimension % parts:
            raise UserError(f"config.mesh.{mesh_axes[0]}", parts, _hint(name, shape, str(axis), dimension, parts))
    parts = math.prod(mesh.shape[mesh_axis] for mesh_axes in entries for mesh_axis in mesh_axes)
    elements = math.prod(dimension for dimension, axis in zip(shape, axes, strict=True) if axis != "layers")
    is_small = elements < LARGE or "rank" in axes or any(shared)
    if parts == 1 < mesh.shape["fsdp"] * mesh.shape["tensor"] and not is_small:
        hint = f"no rule divides its axes {axes} on mesh {dict(mesh.shape)}; it would be copied to every device"
        raise UserError(f"parameter {name}", shape, hint)
    return PartitionSpec(*(entry or None for entry in entries))


def _hint(name: str, shape: tuple[int, ...], axis: str, dimension: int, parts: int) -> str:
    says = f"does not divide {axis} = {dimension} of parameter {name} {shape}; "
    if axis == "vocabulary":
        return says + f"set config.model.vocabulary_size to {-(-dimension // parts) * parts}, or take another mesh"
    return says + f"take one that does, as {math.gcd(dimension, parts)}"


def rule(rules: dict[str, tuple[str, ...]], axis: str) -> tuple[str, ...]:
    """Return the mesh axes of a logical axis; raise UserError where the table has no such name."""
    if axis not in rules:
        raise UserError("logical axis", axis, nearest(axis, list(rules)))
    return rules[axis]


def like_parameters(tree: Any, params: Any, mesh: AnyMesh) -> Any:
    """Return the shardings of an optimizer's state from those of the parameters.

    A leaf belongs to the parameter whose path ends its own. It has the parameter's shape (Adam's moments), or that
    shape without one dimension (Adafactor's factored moments, Shazeer & Stern 2018, section 3), and is divided as the
    parameter's remaining dimensions; all else (counters, placeholders) is replicated.

    Args:
      tree: abstract optimizer state.
      params: tree of (shape, NamedSharding), by `zip_shapes`.
      mesh: of `make_mesh`.
    """
    known = {keys(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_pair)}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _state_sharding(keys(path), leaf.shape, known, mesh), tree
    )


def zip_shapes(abstract: Any, shardings: Any) -> Any:
    """Return a tree of pairs (shape, sharding)."""
    return jax.tree.map(lambda leaf, sharding: (leaf.shape, sharding), abstract, shardings)


def _is_pair(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) == 2 and isinstance(node[1], NamedSharding)


def _state_sharding(
    path: tuple[str, ...], shape: tuple[int, ...], known: dict[Any, Any], mesh: AnyMesh
) -> NamedSharding:
    found = next((known[path[start:]] for start in range(len(path)) if path[start:] in known), None)
    if found is None:
        return replicated(mesh)
    whole: tuple[int, ...] = found[0]
    sharding: NamedSharding = found[1]
    spec = (*sharding.spec, *(None,) * (len(whole) - len(sharding.spec)))
    if shape == whole:
        return sharding
    for gone in range(len(whole)):
        if shape == (*whole[:gone], *whole[gone + 1 :]):
            return NamedSharding(mesh, PartitionSpec(*spec[:gone], *spec[gone + 1 :]))
    return replicated(mesh)


def keys(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Return a tree path as plain strings."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def path_name(path: tuple[Any, ...]) -> str:
    """Return a tree path as one dotted name."""
    return ".".join(keys(path))


def constrain(x: Shaped[Array, "..."], axes: LogicalAxes) -> Shaped[Array, "..."]:
    """Constrain the layout of an activation on the mesh in use (`jax.set_mesh`); the identity where there is none.

    A dimension that its mesh axes do not divide (one prompt on eight devices) is left whole.

    Args:
      x: an activation inside a jitted function.
      axes: one name of ACTIVATION_RULES or None for each dimension.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    constrained: Array = jax.lax.with_sharding_constraint(x, activation_spec(x.shape, axes))
    return constrained


def activation_spec(shape: Sequence[int], axes: LogicalAxes) -> PartitionSpec:
    """Return the layout of an activation on the mesh in use: the mesh axes that divide each dimension, or None."""
    mesh = jax.sharding.get_abstract_mesh()
    sizes = dict(mesh.shape)
    entries = [() if axis is None else rule(ACTIVATION_RULES, axis) for axis in axes]
    dividing = [tuple(name for name in entry if sizes.get(name, 1) > 1) for entry in entries]
    fits = [size % math.prod(sizes[name] for name in entry) == 0 for size, entry in zip(shape, dividing, strict=True)]
    return PartitionSpec(*(entry if entry and fit else None for entry, fit in zip(dividing, fits, strict=True)))


def whole(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Replicate an array on every device of the mesh in use, so that a host reads the parts that others computed."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    everywhere: Array = jax.lax.with_sharding_constraint(x, PartitionSpec())
    return everywhere


def spec_axes(spec: PartitionSpec) -> tuple[str, ...]:
    """Return all mesh axes of a spec."""
    entries = ((entry,) if isinstance(entry, str) else entry for entry in spec if entry)
    return tuple(name for entry in entries for name in entry)


def divides(axis: str) -> bool:
    """Return whether the mesh in use (`jax.set_mesh`) divides a logical axis of activations."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and math.prod(mesh.shape[name] for name in rule(ACTIVATION_RULES, axis)) > 1


def check_lengths(lengths: Sequence[int], mesh: Mesh) -> None:
    """Raise UserError where the mesh does not divide the positions of a row."""
    parts = mesh.shape["sequence"]
    for length in lengths:
        if length % parts:
            raise UserError("config.mesh.sequence", parts, f"does not divide rows of {length} positions")
