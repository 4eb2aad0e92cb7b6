"""The weights that a run begins from: random, of a published folder, or of another run; and its frozen base.

`initial_weights` is the one answer for training, inference and conversion. With low-rank adapters the initial weights
are the frozen base: the same at every step, kept once, and checked against what the adapters were trained beside.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh

from coi_jax.common import files, hub
from coi_jax.common.errors import UserError
from coi_jax.common.seals import read_sealed
from coi_jax.common.storage import Folder
from coi_jax.config.pretrained import check_same_network
from coi_jax.config.run import RunConfig
from coi_jax.families.published_config import from_hf_config, network_fields
from coi_jax.models import Network, Params, build
from coi_jax.parallel import processes
from coi_jax.runs import checkpoint
from coi_jax.runs.run_folder import RunFolder
from coi_jax.weights import kept_base, publish
from coi_jax.weights.mesh_loading import load_params
from coi_jax.weights.safetensors_files import TensorFolder
from coi_jax.weights.sources import (
    CONFIG,
    FIELD,
    CheckpointWeights,
    FiniteWeights,
    InMemoryWeights,
    MergedWeights,
    PublishedWeights,
    WeightSource,
    folder_identity,
    is_run,
)

KEPT_PROGRAMS = 8  # compiled initializers that a process keeps for its next runs
PINNED = "weights_from"  # in `environment.json`: a repository of the Hub with its commit


@runtime_checkable
class InitialWeights(Protocol):
    """The weights that a run begins from."""

    def record(self) -> dict[str, str]:
        """Check the weights, copy what the run keeps of them, and return their identity for `environment.json`.

        Every process calls this; the primary process copies and hashes.

        Raises:
          UserError: there are no such weights, or they belong to another network.
        """

    def load(self, mesh: Mesh | None) -> tuple[Params, Params | None]:
        """Return the trained and the frozen parameters of step 0 on a mesh, on the first device where it is None.

        Raises:
          UserError: there are no such weights, or they belong to another network.
        """

    def load_frozen_base(self, mesh: Mesh | None) -> Params:
        """Return the frozen base of the run's adapters at any later step, laid out as by `load`.

        Raises:
          UserError: it is gone, or differs from the one that the adapters were trained beside.
        """

    def keep_frozen_base(self, frozen: Params | None) -> None:
        """Keep the frozen base for the next run of this process, where it keeps any (`kept_base`)."""

    def merge(self, adapters: Params) -> WeightSource:
        """Return the frozen base with `adapters` merged into it; raises UserError as `load_frozen_base`."""


def initial_weights(run: RunFolder, config: RunConfig, network: Network) -> InitialWeights:
    """Return what a run begins from.

    Args:
      run: the run folder, which may keep a frozen base.
      config: its `weights.folder` names a published folder or another run; random weights are drawn where it does not.
      network: the network of the run, with its adapters.
    """
    if config.weights.folder:
        return PretrainedWeights(run, network, config.seed, config.weights.folder)
    return RandomWeights(run, network, config.seed)


@dataclass(frozen=True)
class RandomWeights:
    """Weights drawn from a seed. A frozen base of them is written to the run, once."""

    run: RunFolder
    network: Network
    seed: int

    def record(self) -> dict[str, str]:
        """See `InitialWeights.record`; the seed in the config says it all."""
        return {}

    def load(self, mesh: Mesh | None) -> tuple[Params, Params | None]:
        """See `InitialWeights.load`."""
        kept_base.drop()
        trained, frozen = _initializer(self.network, mesh)(jax.random.key(self.seed))
        if frozen is not None:
            checkpoint.save_base(self.run.base, frozen)
        return trained, frozen

    def load_frozen_base(self, mesh: Mesh | None) -> Params:
        """See `InitialWeights.load_frozen_base`."""
        kept_base.drop()
        return checkpoint.restore_base(self.run.base, self.network, mesh)

    def keep_frozen_base(self, frozen: Params | None) -> None:
        """See `InitialWeights.keep_frozen_base`; every run has a random base of its own."""

    def merge(self, adapters: Params) -> WeightSource:
        """See `InitialWeights.merge`."""
        return InMemoryWeights(self.network.merge(self.network.join(adapters, self.load_frozen_base(None))))


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights of a published folder, or of another run's newest checkpoint.

    Attributes:
      run: the run that begins from them.
      network: the network of the run, with its adapters.
      seed: the seed of fresh adapters.
      folder: a published folder, which may be a URL, or a run.
      field: the name of the folder in errors.
    """

    run: RunFolder
    network: Network
    seed: int
    folder: str
    field: str = FIELD

    @functools.cached_property
    def pinned(self) -> str:
        """Return the folder; a repository of the Hub at the commit that the run began from."""
        if not hub.is_hub(self.folder):
            return self.folder
        recorded = (
            read_sealed(self.run.environment, "environment").get("data") if self.run.environment.exists() else None
        )
        began_from = str((recorded or {}).get(PINNED, ""))
        return began_from if hub.is_pin_of(began_from, self.folder) else hub.pin(self.folder, self.field)

    def open(self) -> WeightSource:
        """Open the folder; raises UserError where it is missing or belongs to another network."""
        return open_weights(self.pinned, self.network, self.field)

    def record(self) -> dict[str, str]:
        """See `InitialWeights.record`. The folder is not read again once the run has a checkpoint."""
        place = {PINNED: self.pinned} if hub.is_hub(self.folder) else {}
        if checkpoint.latest_step(self.run.checkpoints) is not None:
            return {"weights": self.recorded_identity()} | place
        self.open()
        return {"weights": processes.on_primary(self._keep)} | place

    def recorded_identity(self) -> str:
        """Return the identity that `record` returned before the first step."""
        return files.read_value(self.run.environment, ("data", "weights"), str, "environment", read_sealed)

    def load(self, mesh: Mesh | None) -> tuple[Params, Params | None]:
        """See `InitialWeights.load`."""
        if self.network.lora is not None:
            return self._fresh_adapters(mesh), self._load_base(self.open(), mesh)
        kept_base.drop()
        return load_params(self.open(), self.network, mesh), None

    def load_frozen_base(self, mesh: Mesh | None) -> Params:
        """See `InitialWeights.load_frozen_base`."""
        return self._load_base(self._open_unchanged(), mesh)

    def keep_frozen_base(self, frozen: Params | None) -> None:
        """See `InitialWeights.keep_frozen_base`."""
        if frozen is not None and kept_base.is_enabled():
            kept_base.put(self._base_key(), frozen)

    def _load_base(self, source: WeightSource, mesh: Mesh | None) -> Params:
        """Return the base, laid out on a mesh: the one that is kept, which is moved there, or as it is read."""
        kept = kept_base.take(self._base_key()) if kept_base.is_enabled() else None
        if kept is None:
            return load_params(source, self.network, mesh)
        _, shardings = self.network.split(_shardings(self.network, mesh))
        moved: Params = jax.device_put(kept, shardings)
        return moved

    def _base_key(self) -> tuple[object, ...]:
        """Return what tells one frozen base from another: the weights, the network, and how it is held."""
        assert self.network.lora is not None
        return self.recorded_identity(), dataclasses.replace(self.network, lora=None), self.network.lora.base_dtype

    def merge(self, adapters: Params) -> WeightSource:
        """See `InitialWeights.merge`."""
        return MergedWeights(self._open_unchanged(), self.network, adapters)

    def _keep(self) -> str:
        publish.copy_small_files(self.pinned, self.run)
        return folder_identity(self.pinned)

    def _fresh_adapters(self, mesh: Mesh | None) -> Params:
        """Return adapters before the first step; XLA drops the random base, which nothing asks for."""
        adapters: Params = _adapter_initializer(self.network, mesh)(jax.random.key(self.seed))
        return adapters

    def _open_unchanged(self) -> WeightSource:
        """Open the folder, which must hold what the adapters were trained beside."""
        source = self.open()
        if processes.on_primary(lambda: folder_identity(self.pinned)) != self.recorded_identity():
            hint = "has changed since the adapters were trained beside it; restore it"
            raise UserError(self.field, self.folder, hint)
        return source


def open_weights(folder: str, network: Network, field: str = FIELD) -> WeightSource:
    """Open a published folder, or a run's newest checkpoint, with its adapters merged into their base.

    Its tensors are checked as they are read: NaN or infinity is a UserError then.

    Args:
      folder: a published folder, which may be a URL such as `gs://bucket/mistral`, or a run.
      network: the network that the weights are for; its adapters are left out.
      field: the name of the folder in errors.

    Raises:
      UserError: there is no such folder, or it belongs to another network; nothing has been loaded then.
    """
    network = dataclasses.replace(network, lora=None)
    if is_run(folder):
        return FiniteWeights(_open_run(RunFolder(folder), network, field), field, folder)
    place = Folder(folder, field)
    tensors = TensorFolder(place)
    check_same_network(_model_fields(network), from_hf_config(place.read_json(CONFIG)), folder)
    return FiniteWeights(PublishedWeights(tensors, network), field, folder)


def _open_run(run: RunFolder, network: Network, field: str) -> WeightSource:
    config, step = run.load_config(), checkpoint.latest_step(run.checkpoints)
    if step is None:
        raise UserError(field, run.path, "has no checkpoint yet; train it first (python -m coi_jax.train)")
    own = build(config.model, run.load_vocabulary().size, config.lora)
    expected = _model_fields(own)
    check_same_network(
        _model_fields(network), {name: expected[name] for name in network_fields(config.model.kind)}, run.path
    )
    if own.lora is None:
        checkpoint.check_params(run.checkpoints, step)
        return CheckpointWeights(run.checkpoints, step)
    adapters = checkpoint.restore_params(run.checkpoints, own, step=step)
    return initial_weights(run, config, own).merge(adapters)


def _model_fields(network: Network) -> dict[str, Any]:
    return network.config.model_dump() | {"vocabulary_size": network.vocabulary_size}


@functools.lru_cache(maxsize=KEPT_PROGRAMS)
def _initializer(network: Network, mesh: Mesh | None) -> Callable[[jax.Array], tuple[Params, Params | None]]:
    """Return a compiled function that draws the trained and the frozen parameters from a key."""
    shardings = network.split(_shardings(network, mesh))
    return jax.jit(lambda key: network.split(network.init(key)), out_shardings=shardings)


@functools.lru_cache(maxsize=KEPT_PROGRAMS)
def _adapter_initializer(network: Network, mesh: Mesh | None) -> Callable[[jax.Array], Params]:
    """Return a compiled function that draws the adapters from a key."""
    shardings, _ = network.split(_shardings(network, mesh))
    return jax.jit(lambda key: network.split(network.init(key))[0], out_shardings=shardings)


def _shardings(network: Network, mesh: Mesh | None) -> Any:
    return jax.tree.map(lambda leaf: leaf.sharding, checkpoint.placed_params(network, mesh))
