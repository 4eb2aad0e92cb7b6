"""Checkpoints: parameters, optimizer state and data position of a step as one unit, written in the background.

Orbax writes a step's folder under a temporary name and renames it last (in a bucket it adds a marker file last), so a
checkpoint is whole or absent. Arrays are saved in their own shape, whatever the mesh, and are restored onto any other.
"""

import errno
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, absolute, as_path, file_identity, list_files
from coi_jax.models import Network, Params
from coi_jax.parallel import processes, sharding
from coi_jax.runs.checkpoint_steps import COMMITTED, needs_commit, steps
from coi_jax.runs.train_state import TrainState

Position = dict[str, Any]  # JSON: where the run stands, and of which data


class Checkpoints:
    """The checkpoints of a run; the newest few are kept.

    `with Checkpoints(run / "checkpoints", keep=3) as checkpoints: checkpoints.save(state, step, position)`
    """

    def __init__(self, folder: PathLike, *, keep: int) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        self._folder = folder
        self._manager = ocp.CheckpointManager(absolute(folder), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until all is written; raise as `save`."""
        with storage_errors(self._folder):
            self._manager.close()

    def save(self, state: TrainState, step: int, position: Position) -> None:
        """Begin to write a checkpoint; return when the arrays have left the devices. A step is only saved once.

        Args:
          state: what is saved, but for the frozen base.
          step: the steps that it has taken.
          position: where the run stands in its data.

        Raises:
          OSError: this write or the one before found no room; checkpoints written earlier are whole.
        """
        if step == self._manager.latest_step():
            return
        items = {
            "params": ocp.args.StandardSave(state.params, save_args=jax.tree.map(by_layer, state.params)),
            "optimizer": ocp.args.StandardSave(state.opt_state),
            "position": ocp.args.JsonSave(position | {"step": step}),
        }
        with storage_errors(self._folder):
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """Restore the state of a step.

        Args:
          step: of a whole checkpoint.
          abstract: shapes and dtypes of the state.
          shardings: the layout that the state gets.
        """
        target = jax.tree.map(_placed, abstract, shardings)
        items = {
            "params": ocp.args.StandardRestore(target.params),
            "optimizer": ocp.args.StandardRestore(target.opt_state),
        }
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        count = jax.device_put(jax.numpy.asarray(step, jax.numpy.int32), shardings.step)
        return TrainState(restored["params"], restored["optimizer"], count)


class storage_errors:
    """Turn the several errors in which Orbax reports a full disk into an OSError that names the folder."""

    def __init__(self, folder: PathLike) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        chain = error
        while chain is not None:
            if getattr(chain, "errno", None) == errno.ENOSPC or "No space left on device" in str(chain):
                raise OSError(errno.ENOSPC, "No space left on device", str(self._folder)) from None
            chain = chain.__cause__ or chain.__context__


def _placed(leaf: Any, place: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def latest_step(folder: PathLike) -> int | None:
    """Return the newest step that has a whole checkpoint, as the primary process sees it."""
    step: int | None = processes.on_primary(lambda: max(steps(folder), default=None))
    return step


def read_position(folder: PathLike, step: int) -> Position:
    """Return the position that was saved with a step."""
    position: Position = _read(folder, step, "position", ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())
    return position


def write_position(folder: PathLike, step: int, position: Position) -> None:
    """Complete a checkpoint by its position, where parameters are there already; `Checkpoints.save` writes both.

    Args:
      folder: the run's `checkpoints`.
      step: of the checkpoint.
      position: where the run stands.
    """
    place = absolute(folder) / str(step)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
        writer.save(place / "position", args=ocp.args.JsonSave(position | {"step": step}))
    if needs_commit(place):
        files.write_text(place / COMMITTED, f"{step} was written whole\n")


def restore_params(folder: PathLike, network: Network, *, step: int | None = None, mesh: Mesh | None = None) -> Params:
    """Restore the trained parameters alone, for evaluation.

    Args:
      folder: the run's `checkpoints`.
      network: whose parameters they are.
      step: of the checkpoint; the newest where None.
      mesh: to lay them out on; the first device where None.

    Raises:
      UserError: there is no such checkpoint, or it holds another network's parameters.
    """
    found = latest_step(folder) if step is None else step
    if found not in steps(folder):
        place = folder if step is None else as_path(folder) / str(step)
        raise UserError("checkpoint", place, "none there; train the run first")
    target, _ = network.split(placed_params(network, mesh))
    try:
        params: Params = _read(
            folder, found, "params", ocp.StandardCheckpointHandler(), ocp.args.StandardRestore(target)
        )
        return params
    except ValueError:
        hint = "does not hold this network's parameters; evaluate it with the config that it was trained with"
        raise UserError("checkpoint", as_path(folder) / str(found), hint) from None


def save_base(folder: PathLike, frozen: Params | None) -> None:
    """Write the frozen base of adapters, which is the same at every step; over what a killed run left there.

    Raises:
      OSError: there is no room.
    """
    with storage_errors(folder), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        save_args = jax.tree.map(by_layer, frozen)
        writer.save(absolute(folder), args=ocp.args.StandardSave(frozen, save_args=save_args), force=True)


def restore_base(folder: PathLike, network: Network, mesh: Mesh | None = None) -> Params:
    """Restore the frozen base of a network with adapters.

    Args:
      folder: of `save_base`.
      network: whose base it is.
      mesh: to lay it out on; the first device where None.

    Raises:
      UserError: the base is not there.
    """
    if not as_path(folder).is_dir():
        raise UserError("base", folder, "none there; the adapters of this run need the base that they were trained on")
    _, target = network.split(placed_params(network, mesh))
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        base: Params = reader.restore(absolute(folder), args=ocp.args.StandardRestore(target))
    return base


def by_layer(leaf: Any) -> ocp.SaveArgs:
    """Return how an array is stored: a stack of matrices in one piece per layer, so that a layer can be read alone."""
    return ocp.SaveArgs(shard_axes=(0,) if len(leaf.shape) > 2 else ())


def identity(folder: PathLike, step: int) -> str:
    """Return the step and a hash of all files that hold its parameters: names and bytes, or a bucket's checksums."""
    params = as_path(folder) / str(step) / "params"
    digest = files.digest([[name, file_identity(params / name)] for name in list_files(params)])
    return f"{step}-{digest[:16]}"


def placed_params(network: Network, mesh: Mesh | None) -> Params:
    """Return a network's abstract parameters, laid out on a mesh; on the first device where it is None."""
    abstract = network.abstract()
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if mesh is None:
        placed: Params = jax.tree.map(lambda leaf: _placed(leaf, one), abstract)
    else:
        placed = jax.tree.map(_placed, abstract, sharding.shardings(network.logical_axes(), abstract, mesh))
    return placed


def _read(folder: PathLike, step: int, item: str, handler: Any, arguments: Any) -> Any:
    with ocp.Checkpointer(handler) as reader:
        return reader.restore(absolute(folder) / str(step) / item, args=arguments)
