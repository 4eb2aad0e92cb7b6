"""Sources of weights: a published folder, a run's checkpoint, adapters merged into their base, or arrays in memory.

Every source is read a layer at a time, so that host memory never holds a whole model. `initial_weights` opens them for
a run, and `mesh_loading` puts them on devices.
"""

import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from coi_jax.common import files, hub
from coi_jax.common.errors import UserError
from coi_jax.common.storage import Folder, PathLike, as_path
from coi_jax.models import Network, Params
from coi_jax.models.lora import lora_delta
from coi_jax.models.quantization import dequantize
from coi_jax.runs import checkpoint, checkpoint_steps, read_back
from coi_jax.runs.damage import damage_errors
from coi_jax.runs.finite import NOT_FINITE, is_finite
from coi_jax.runs.run_folder import RunFolder
from coi_jax.weights.hf_names import ParameterMapping, fused_parts, parameter_mappings, resolve_keys
from coi_jax.weights.safetensors_files import Tensor, TensorFolder

FIELD = "config.weights.folder"
CONFIG = "config.json"


@runtime_checkable
class WeightSource(Protocol):
    """All parameters of a network without its adapters, read a layer at a time."""

    def layer(self, mapping: ParameterMapping, number: int) -> Tensor:
        """Return one layer of a stacked parameter, or the whole of an unstacked one, in the dtype it is stored in."""

    def dtype(self, mapping: ParameterMapping) -> np.dtype:
        """Return the dtype that a parameter is stored in."""


class PublishedWeights:
    """The weights of a folder in the layout of Hugging Face."""

    def __init__(self, tensors: TensorFolder, network: Network) -> None:
        """Find every parameter of `network`, which has no adapters.

        Raises:
          UserError: a tensor is missing, has another shape or no place in the network, or tied tensors differ.
        """
        self._tensors = tensors
        mappings = parameter_mappings(network.config, network.abstract())
        rows = {key: mapping.tensor_shape[0] for mapping in mappings.values() for key in mapping.keys}
        for key in [*tensors.entries]:
            if parts := fused_parts(key):
                tensors.split(key, {part: rows.get(part, 0) for part in parts})
        shapes = {key: entry.shape for key, entry in tensors.entries.items()}
        self._resolved = resolve_keys(network.config, mappings, shapes, tensors.folder.url)
        for pair in self._resolved.duplicates:
            tensors.check_equal(*pair)

    def layer(self, mapping: ParameterMapping, number: int) -> Tensor:
        """See `WeightSource.layer`."""
        return mapping.from_tensor(self._tensors.read(self._resolved.keys[mapping.keys[number]]))

    def dtype(self, mapping: ParameterMapping) -> np.dtype:
        """See `WeightSource.dtype`; the widest where layers differ."""
        entries = [self._tensors.entries[self._resolved.keys[key]] for key in mapping.keys]
        return functools.reduce(jnp.promote_types, [entry.dtype for entry in entries])


class CheckpointWeights:
    """The parameters of a run's checkpoint, in the files that Orbax writes: Zarr arrays in one OCDBT store."""

    def __init__(self, folder: PathLike, step: int) -> None:
        """Open the parameters of a step in `folder`, a run's `checkpoints`."""
        self._store = functools.cache(functools.partial(read_back.open_array, as_path(folder) / str(step) / "params"))
        self._damage_errors = functools.partial(damage_errors, folder, step)

    def layer(self, mapping: ParameterMapping, number: int) -> Tensor:
        """See `WeightSource.layer`; raise DamagedCheckpoint where it cannot be read."""
        with self._damage_errors():
            store = self._store(mapping.path)
            return np.asarray((store[number] if mapping.stacked else store).read().result())

    def dtype(self, mapping: ParameterMapping) -> np.dtype:
        """See `WeightSource.dtype`; raise as `layer`."""
        with self._damage_errors():
            return np.dtype(self._store(mapping.path).dtype.numpy_dtype)


class MergedWeights:
    """A base with a run's adapters merged into it in fp32, from the base as the network holds it (quantized)."""

    def __init__(self, base: WeightSource, network: Network, adapters: Params) -> None:
        """Merge `adapters`, the trained parameters of `network`, into `base`."""
        self._base, self._network = base, network
        self._adapters = nnx.traversals.flatten_mapping(jax.device_get(adapters))

    def layer(self, mapping: ParameterMapping, number: int) -> Tensor:
        """See `WeightSource.layer`."""
        layer = self._base.layer(mapping, number).astype(np.float32)
        *name, last = mapping.path.split(".")
        held = self._network.cast_base_parameter((*name, last), jnp.asarray(layer[None] if mapping.stacked else layer))
        values = dequantize(held, jnp.dtype(np.float32))
        linear = self._network.adapted_linear_maps.get(".".join(name))
        if last == "kernel" and linear is not None:
            a, b = (jnp.asarray(self._adapters[*name, "adapter", part]) for part in ("a", "b"))
            if mapping.stacked:
                a, b = a[number, None], b[number, None]
            values += lora_delta(a, b, linear.adapter.scaling, stacked=mapping.stacked)
        return np.asarray(values[0] if mapping.stacked else values)

    def dtype(self, _: ParameterMapping) -> np.dtype:
        """See `WeightSource.dtype`."""
        return np.dtype(np.float32)


class FiniteWeights:
    """Weights of which each tensor is checked when it is read: NaN or infinity is an error."""

    def __init__(self, source: WeightSource, field: str, place: object) -> None:
        """Check what `source` reads.

        Args:
          source: the weights.
          field: the name of the place in an error.
          place: the folder that they are read from.
        """
        self._source, self._field, self._place = source, field, place

    def layer(self, mapping: ParameterMapping, number: int) -> Tensor:
        """See `WeightSource.layer`; raise UserError where the tensor holds a number that is not finite."""
        layer = self._source.layer(mapping, number)
        if not is_finite(layer):
            hint = f"{mapping.keys[number]} {NOT_FINITE}; fetch the folder again, or train again"
            raise UserError(self._field, self._place, hint)
        return layer

    def dtype(self, mapping: ParameterMapping) -> np.dtype:
        """See `WeightSource.dtype`."""
        return self._source.dtype(mapping)


class InMemoryWeights:
    """Parameters that are in memory already."""

    def __init__(self, params: Params) -> None:
        """Read from `params`, which hold no adapters."""
        self._leaves = nnx.traversals.flatten_mapping(params)

    def layer(self, mapping: ParameterMapping, number: int) -> Tensor:
        """See `WeightSource.layer`."""
        leaf = self._leaves[tuple(mapping.path.split("."))]
        return np.asarray(leaf[number] if mapping.stacked else leaf)

    def dtype(self, mapping: ParameterMapping) -> np.dtype:
        """See `WeightSource.dtype`."""
        dtype: np.dtype = np.dtype(self._leaves[tuple(mapping.path.split("."))].dtype)
        return dtype


def is_run(folder: str) -> bool:
    """Return whether a folder is a run of this project, not a published model."""
    return not hub.is_hub(folder) and bool(RunFolder(folder).checkpoints.is_dir())


def folder_identity(folder: str) -> str:
    """Return a hash of the weights in a folder and of its config; reading a large folder takes a while."""
    if is_run(folder):
        checkpoints = RunFolder(folder).checkpoints
        return checkpoint.identity(checkpoints, max(checkpoint_steps.steps(checkpoints)))
    place = Folder(folder, FIELD)
    return files.digest([place.identity(CONFIG), TensorFolder(place).identity()])
