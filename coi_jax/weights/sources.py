"""Weights that a run begins from: a published folder's, or another run's, read a layer at a time.

Host memory holds one tensor, and what is made of it for the devices, whatever the model's size: a stack of layers is
made where it will live, and each layer is written into it there.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import tensorstore
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Int, Shaped

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.progress import Bar
from coi_jax.common.storage import Folder, PathLike, absolute, is_local
from coi_jax.config.run import RunConfig
from coi_jax.models import Network, Params, build
from coi_jax.models.lora import product
from coi_jax.models.quantization import dense
from coi_jax.parallel import processes, sharding
from coi_jax.runs import checkpoint
from coi_jax.runs.run_folder import RunFolder
from coi_jax.weights.hf_config import architecture, check_same, fields
from coi_jax.weights.hf_names import Place, places, resolve
from coi_jax.weights.safetensors_files import Tensor, TensorFolder

FIELD = "config.weights.folder"
CONFIG = "config.json"


@runtime_checkable
class Weights(Protocol):
    """Parameters by their paths, a layer at a time."""

    source: str

    def layer(self, place: Place, number: int) -> Tensor:
        """One layer of a stacked parameter, or the whole of another, in the dtype that it is kept in."""

    def dtype(self, place: Place) -> np.dtype:
        """The dtype that it is kept in."""


class PublishedWeights:
    """The weights of a folder of Hugging Face's."""

    def __init__(self, tensors: TensorFolder, network: Network) -> None:
        """Finds every parameter of `network`, which has no adapters.

        Raises:
          UserError: a tensor is missing, of another shape, or of no use to the network, or two that must be one differ.
        """
        self.source, self._tensors = tensors.folder.url, tensors
        where = places(network.config, network.abstract())
        shapes = {key: entry.shape for key, entry in tensors.entries.items()}
        self._held = resolve(network.config, where, shapes, self.source)
        for twins in self._held.twins:
            tensors.check_equal(*twins)

    def layer(self, place: Place, number: int) -> Tensor:
        """See `Weights.layer`."""
        return place.from_tensor(self._tensors.read(self._held.keys[place.keys[number]]))

    def dtype(self, place: Place) -> np.dtype:
        """See `Weights.dtype`; the widest where layers differ."""
        entries = [self._tensors.entries[self._held.keys[key]] for key in place.keys]
        return functools.reduce(jnp.promote_types, [entry.dtype for entry in entries])


class CheckpointWeights:
    """The parameters of a run's checkpoint, in the files that Orbax writes: Zarr arrays in one OCDBT store."""

    def __init__(self, folder: PathLike) -> None:
        """`folder` is the checkpoint's `params`."""
        self.source, self._folder = str(folder), absolute(folder)
        self._store = functools.cache(self._open)

    def layer(self, place: Place, number: int) -> Tensor:
        """See `Weights.layer`."""
        store = self._store(place.path)
        return np.asarray((store[number] if place.stacked else store).read().result())

    def dtype(self, place: Place) -> np.dtype:
        """See `Weights.dtype`."""
        return np.dtype(self._store(place.path).dtype.numpy_dtype)

    def _open(self, path: str) -> tensorstore.TensorStore:
        base = f"{self._folder}/" if not is_local(self._folder) else {"driver": "file", "path": f"{self._folder}/"}
        kvstore = {"driver": "ocdbt", "base": base, "path": f"{path}/"}
        return tensorstore.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True).result()


class MergedWeights:
    """A base with a run's adapters folded into it, as the network computes with them: in fp32."""

    def __init__(self, base: Weights, network: Network, adapters: Params) -> None:
        """`adapters` are the trained parameters of `network`."""
        self.source, self._base, self._network = base.source, base, network
        self._adapters = nnx.traversals.flatten_mapping(jax.device_get(adapters))

    def layer(self, place: Place, number: int) -> Tensor:
        """See `Weights.layer`."""
        layer = self._base.layer(place, number).astype(np.float32)
        *name, last = place.path.split(".")
        held = self._network.hold_one((*name, last), jnp.asarray(layer[None] if place.stacked else layer))
        values = dense(held, jnp.dtype(np.float32))
        linear = self._network.adapted.get(".".join(name))
        if last == "kernel" and linear is not None:
            a, b = (jnp.asarray(self._adapters[*name, "adapter", part]) for part in ("a", "b"))
            if place.stacked:
                a, b = a[number, None], b[number, None]
            values += product(a, b, linear.adapter.scaling, stacked=place.stacked)
        return np.asarray(values[0] if place.stacked else values)

    def dtype(self, _: Place) -> np.dtype:
        """See `Weights.dtype`."""
        return np.dtype(np.float32)


class TreeWeights:
    """Parameters that are in memory."""

    def __init__(self, params: Params, source: str) -> None:
        self.source, self._leaves = source, nnx.traversals.flatten_mapping(params)

    def layer(self, place: Place, number: int) -> Tensor:
        """See `Weights.layer`."""
        leaf = self._leaves[tuple(place.path.split("."))]
        return np.asarray(leaf[number] if place.stacked else leaf)

    def dtype(self, place: Place) -> np.dtype:
        """See `Weights.dtype`."""
        return np.dtype(self._leaves[tuple(place.path.split("."))].dtype)


def open_weights(folder: str, network: Network, field: str = FIELD) -> Weights:
    """The weights of a published folder, or those of a run's newest checkpoint.

    Args:
      folder: may be a URL, as `gs://bucket/mistral`, where it is a published one.
      network: what they are for; they are of all but its adapters.
      field: what an error calls the folder.

    Raises:
      UserError: there is no such folder, or it is not of this network; nothing has been loaded then.
    """
    network = dataclasses.replace(network, lora=None)
    if is_run(folder):
        return _run_weights(RunFolder(folder), network, field)
    place = Folder(folder, field)
    tensors = TensorFolder(place)
    check_same(_section(network), architecture(place.read_json(CONFIG)), folder)
    return PublishedWeights(tensors, network)


def is_run(folder: str) -> bool:
    """Whether a folder is one of our runs."""
    return bool(RunFolder(folder).checkpoints.is_dir())


def _run_weights(run: RunFolder, network: Network, field: str) -> Weights:
    config, step = run.load_config(), checkpoint.latest_step(run.checkpoints)
    if step is None:
        raise UserError(field, run.path, "has no checkpoint yet; train it first (python -m coi_jax.train)")
    own = build(config.model, run.load_vocabulary().size, config.lora)
    due = _section(own)
    check_same(_section(network), {name: due[name] for name in fields(config.model.kind)}, run.path)
    if own.lora:
        return _merged(run, config, own, step)
    return CheckpointWeights(run.checkpoints / str(step) / "params")


def _merged(run: RunFolder, config: RunConfig, network: Network, step: int) -> Weights:
    """A run's adapters, folded into their base."""
    adapters = checkpoint.restore_params(run.checkpoints, network, step=step)
    if config.weights.folder:
        return MergedWeights(open_base(run, config, network), network, adapters)
    base = checkpoint.restore_base(run.base, network)
    return TreeWeights(network.merge(network.join(adapters, base)), str(run.path))


def _section(network: Network) -> dict[str, Any]:
    return network.config.model_dump() | {"vocabulary_size": network.vocabulary_size}


def identity(folder: str) -> str:
    """A hash of the weights and of what describes them; of a large folder it takes a while."""
    if is_run(folder):
        checkpoints = RunFolder(folder).checkpoints
        return checkpoint.identity(checkpoints, max(checkpoint.steps(checkpoints)))
    place = Folder(folder, FIELD)
    return files.digest([place.identity(CONFIG), TensorFolder(place).identity()])


def recorded_identity(run: RunFolder) -> str:
    """What `identity` was of the weights that a run began from."""
    found: str = files.read_json(run.environment, "environment")["data"]["weights"]
    return found


def restore_base(run: RunFolder, config: RunConfig, network: Network, mesh: Mesh | None) -> Params:
    """The frozen base of a run's adapters: of the folder that it began from, else the run's own copy.

    Raises:
      UserError: it is not there, or is another than the adapters were trained beside.
    """
    if not config.weights.folder:
        return checkpoint.restore_base(run.base, network, mesh)
    return load(open_base(run, config, network), network, mesh)


def open_base(run: RunFolder, config: RunConfig, network: Network) -> Weights:
    """The published weights that a run's adapters stand beside; raises as `restore_base`."""
    folder = config.weights.required_folder
    source = open_weights(folder, network)
    if processes.on_primary(lambda: identity(folder)) != recorded_identity(run):
        raise UserError(FIELD, folder, "has changed since the adapters were trained beside it; restore it")
    return source


def load(weights: Weights, network: Network, mesh: Mesh | None) -> Params:
    """All parameters of a network but its adapters, each as the network holds it, laid out on the mesh.

    Args:
      weights: of `open_weights`.
      network: fp32 parameters where they are trained; a frozen base as `lora.base_dtype` says.
      mesh: to lay them out on; the first device where None.
    """
    abstract = checkpoint.placed_params(dataclasses.replace(network, lora=None), mesh)
    held = checkpoint.placed_params(network, mesh)
    where = places(network.config, abstract)
    with Bar("reading weights", sum(len(place.keys) for place in where.values())) as bar:

        def leaf(path: tuple[Any, ...], plain: jax.ShapeDtypeStruct, like: Any) -> Any:
            place = where[sharding.path_name(path)]

            def done() -> None:
                bar.advance(note=place.path)

            if isinstance(like, jax.ShapeDtypeStruct):
                return read_parameter(weights, place, like, done)
            hold = functools.partial(network.hold_one, sharding.keys(path))
            return _read_quantised(weights, place, like, plain.sharding, hold, done)

        base = network.split(held)[1] if network.lora else held
        return jax.tree_util.tree_map_with_path(leaf, abstract, base)


def read_parameter(
    weights: Weights, place: Place, like: jax.ShapeDtypeStruct, done: Callable[[], None] = lambda: None
) -> Shaped[Array, "..."]:
    """One parameter, read a layer at a time into its place on the devices.

    Args:
      weights: where it is read from.
      place: which it is.
      like: its shape, with its layers, and the dtype and the sharding that it gets.
      done: called after each layer.
    """
    if not place.stacked:
        whole = _put(weights.layer(place, 0), like.sharding).astype(like.dtype)
        done()
        return whole
    stack = _empty(like.shape, like.dtype, like.sharding)()
    return _fill(stack, _writer(like.sharding), weights, place, like.sharding, done)


def _read_quantised(
    weights: Weights, place: Place, like: Any, layout: Sharding, hold: Callable[[Array], Any], done: Callable[[], None]
) -> Any:
    """As `read_parameter`, quantised a layer at a time on its devices, which never have all layers in fp32.

    Args:
      weights: where it is read from.
      place: which it is, of a stack.
      like: a tree of shapes, dtypes and shardings: values and scales.
      layout: of a stack in fp32.
      hold: quantises such a stack, each layer by itself.
      done: called after each layer.
    """
    layouts = jax.tree.map(lambda part: part.sharding, like)

    def write(stack: Any, layer: Shaped[Array, "..."], number: Int[Array, ""]) -> Any:
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, number, 0),
            stack,
            hold(layer.astype(jnp.float32)[None]),
        )

    zeros = jax.jit(lambda: jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), like), out_shardings=layouts)
    return _fill(zeros(), jax.jit(write, donate_argnums=0, out_shardings=layouts), weights, place, layout, done)


def _fill(
    stack: Any,
    write: Callable[..., Any],
    weights: Weights,
    place: Place,
    layout: Sharding,
    done: Callable[[], None],
) -> Any:
    """Writes all layers into a stack."""
    for number in range(len(place.keys)):
        layer = _put(weights.layer(place, number), _of_layer(layout))
        stack = jax.block_until_ready(write(stack, layer, np.int32(number)))  # or the host would read ahead
        done()
    return stack


def _put(array: Tensor, sharding: Sharding) -> Shaped[Array, "..."]:
    """A host's array on the devices, each of which gets its part, in a dtype that they have."""
    dtype = array.dtype if array.dtype in (np.float32, ml_dtypes.bfloat16) else np.dtype(np.float32)
    return jax.make_array_from_callback(
        array.shape, sharding, lambda part: np.ascontiguousarray(array[part], dtype), dtype=dtype
    )


def _of_layer(stack: Sharding) -> Sharding:
    """The sharding of one layer of a stack."""
    if isinstance(stack, NamedSharding):
        return NamedSharding(stack.mesh, PartitionSpec(*stack.spec[1:]))
    return stack


@functools.lru_cache(maxsize=256)
def _empty(shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding) -> Callable[[], Shaped[Array, "..."]]:
    """Makes a stack of zeros where it will live."""
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)


@functools.lru_cache(maxsize=256)
def _writer(sharding: Sharding) -> Callable[..., Shaped[Array, "..."]]:
    """Writes a layer into a stack, in the stack's own memory."""

    def write(
        stack: Shaped[Array, "layers ..."], layer: Shaped[Array, "..."], number: Int[Array, ""]
    ) -> Shaped[Array, "layers ..."]:
        return jax.lax.dynamic_update_index_in_dim(stack, layer.astype(stack.dtype), number, 0)

    return jax.jit(write, donate_argnums=0, out_shardings=sharding)
