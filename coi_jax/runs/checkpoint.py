"""Checkpoints: parameters, optimizer state and data position of a step as one unit, written in the background.

Orbax writes a step's folder under a temporary name and renames it last (in a bucket it adds a marker file last), so a
checkpoint is whole or absent. Arrays are saved in their own shape, whatever the mesh, and are restored onto any other.
The position holds a checksum of every array. A checkpoint is read back before it gets its name and before an older one
is removed; one that was damaged later is noticed when it is restored.
"""

import itertools
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, absolute, as_path, file_identity, is_file, list_files, rename_folder
from coi_jax.models import Network, Params
from coi_jax.parallel import processes, sharding
from coi_jax.runs import checksums, read_back
from coi_jax.runs.checkpoint_steps import COMMITTED, needs_commit, steps
from coi_jax.runs.damage import DamagedCheckpoint, NotReadBack, damage_errors
from coi_jax.runs.finite import NOT_FINITE, first_not_finite
from coi_jax.runs.storage_errors import failed_read, storage_errors
from coi_jax.runs.train_state import TrainState

Position = dict[str, Any]  # JSON: where the run stands, and of which data
ARRAYS = "arrays"  # the checksums in a saved position
PARAMS = "['params']"  # begins the paths of parameters there
DIGEST = "digest"  # of the rest of a saved position
POSITION_FILE = "position/metadata"  # the JSON file in which Orbax writes it
BASE_ARRAYS = "checksums.json"  # those of a frozen base, in its folder
WRITE_SECONDS = 3600  # that hosts wait for each other while a checkpoint is written and read back


class Checkpoints:
    """The checkpoints of a run; the newest few are kept.

    `with Checkpoints(run / "checkpoints", keep=3) as checkpoints: checkpoints.save(state, step, position)`
    """

    def __init__(self, folder: PathLike, *, keep: int) -> None:
        background = ocp.AsyncOptions(timeout_secs=WRITE_SECONDS, post_finalization_callback=self._read_back)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            async_options=background,
        )
        self._folder, self._saving = folder, Position()
        self._manager = ocp.CheckpointManager(absolute(folder), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until all is written; raise as `save`."""
        with storage_errors(self._folder):
            self._manager.close()

    def save(self, state: TrainState, step: int, position: Position) -> None:
        """Begin to write a checkpoint; return when the arrays have left the devices. A step is only saved once.

        Older checkpoints are removed when this one was read back. Where the one before was not written as it was saved,
        a line says so and it is left out; on several hosts that is an error, since only the primary process knows.

        Args:
          state: what is saved, but for the frozen base.
          step: the steps that it has taken.
          position: where the run stands in its data.

        Raises:
          OSError: this write or the one before found no room; checkpoints written earlier are whole.
          NotReadBack: the one before was not written as it was saved, on several hosts.
        """
        if step == self._manager.latest_step():
            return
        self._finish_last()
        self._saving = _signed(position | {"step": step, ARRAYS: _checksums(state)})
        items = {
            "params": ocp.args.StandardSave(state.params, save_args=jax.tree.map(by_layer, state.params)),
            "optimizer": ocp.args.StandardSave(state.opt_state),
            "position": ocp.args.JsonSave(self._saving),
        }
        with storage_errors(self._folder):
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def _finish_last(self) -> None:
        """Wait until the last checkpoint is written and read back; raises as `save`."""
        try:
            with storage_errors(self._folder):
                self._manager.wait_until_finished()
        except NotReadBack as error:
            if jax.process_count() > 1:
                raise
            processes.log_primary(f"{error.what}; older checkpoints are kept, and training goes on")
            self._manager.reload()

    def _read_back(self) -> None:
        """Raise NotReadBack where the files of the checkpoint that is being saved are not as they should be.

        Orbax calls it in the background of the primary process, when all is written but has a temporary name.
        """
        step = self._saving["step"]
        names = [entry for entry in as_path(self._folder).iterdir() if entry.name.partition(".")[0] == str(step)]
        damage = "its files are not there"
        try:
            for place in names:
                damage = _damage(place, digest=self._saving[DIGEST])
        except OSError as error:  # it may be sound, but is not known to be
            damage = str(error)
        if damage:
            raise NotReadBack(self._folder, step, damage)

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """Restore the state of a step.

        Args:
          step: of a whole checkpoint.
          abstract: shapes and dtypes of the state.
          shardings: the layout that the state gets.

        Raises:
          DamagedCheckpoint: it cannot be read, or holds other numbers than were saved.
          UserError: a parameter holds NaN or infinity.
        """
        target = jax.tree.map(_placed, abstract, shardings)
        items = {
            "params": ocp.args.StandardRestore(target.params),
            "optimizer": ocp.args.StandardRestore(target.opt_state),
        }
        with damage_errors(self._folder, step):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        count = jax.device_put(jax.numpy.asarray(step, jax.numpy.int32), shardings.step)
        state = TrainState(restored["params"], restored["optimizer"], count)
        _verify(self._folder, step, {"params": state.params, "optimizer": state.opt_state})
        _check_finite(self._folder, step, state.params)
        return state

    def set_aside(self, damage: DamagedCheckpoint) -> None:
        """Rename a damaged checkpoint, as the function `set_aside`, so that the one before is the newest."""
        set_aside(damage)
        self._manager.reload()


def _placed(leaf: Any, place: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def set_aside(damage: DamagedCheckpoint) -> None:
    """Rename a damaged checkpoint to `damaged-<step>`, and say so.

    Raises:
      DamagedCheckpoint: there is none before, or other hosts may not have noticed the damage.
    """
    if not is_passed_over(damage):
        raise damage
    name = processes.on_primary(lambda: _rename_damaged(damage))
    processes.log_primary(f"{damage.what}; it is kept as {name}, and the one before it is used")


def is_passed_over(damage: DamagedCheckpoint) -> bool:
    """Return whether a damaged checkpoint has one before it, and all hosts can go on from that one."""
    is_known = jax.process_count() == 1 or damage.is_agreed
    return is_known and latest_step(damage.folder, damage.step) is not None


def _rename_damaged(damage: DamagedCheckpoint) -> str:
    names = (f"damaged-{damage.step}" + (f"-{number}" if number else "") for number in itertools.count())
    place = next(damage.folder / name for name in names if not (damage.folder / name).exists())
    rename_folder(damage.folder / str(damage.step), place)
    return str(place.name)


def check_on_all_hosts(folder: PathLike, step: int, prefix: str = "") -> None:
    """Raise DamagedCheckpoint on every host where one of several finds that a checkpoint is not what was saved.

    Each host reads a share of the arrays. Without it, one host would raise while the others wait for it to restore. One
    process alone does nothing here: `restore` notices the damage.

    Args:
      folder: the run's `checkpoints`.
      step: of the checkpoint.
      prefix: with which the paths of the arrays begin that are read.
    """
    if jax.process_count() == 1:
        return
    share = slice(jax.process_index(), None, jax.process_count())
    reason = _damage(as_path(folder) / str(step), share=share, prefix=prefix)
    if processes.on_any(bool(reason)):
        raise DamagedCheckpoint(folder, step, reason or "as another host found", is_agreed=True)


def check_params(folder: PathLike, step: int) -> None:
    """Raise DamagedCheckpoint where the files of a checkpoint do not hold the parameters that were saved.

    For parameters that are read a layer at a time, which `restore` does not check; it reads all of them once more.

    Args:
      folder: the run's `checkpoints`.
      step: of the checkpoint.
    """
    check_on_all_hosts(folder, step, PARAMS)
    if jax.process_count() == 1 and (reason := _damage(as_path(folder) / str(step), prefix=PARAMS)):
        raise DamagedCheckpoint(folder, step, reason)


def latest_step(folder: PathLike, before: int | None = None) -> int | None:
    """Return the newest step that has a whole checkpoint, as the primary process sees it.

    Args:
      folder: the run's `checkpoints`.
      before: a step that the newest has to come before; None takes any.
    """

    def find() -> int | None:
        return max((step for step in steps(folder) if before is None or step < before), default=None)

    step: int | None = processes.on_primary(find)
    return step


def read_position(folder: PathLike, step: int) -> Position:
    """Return the position that was saved with a step; raise DamagedCheckpoint where it cannot be read."""
    position = _read_position(folder, step)
    return {name: value for name, value in position.items() if name not in (ARRAYS, DIGEST)}


def _read_position(folder: PathLike, step: int) -> Position:
    with damage_errors(folder, step):
        if not is_file(as_path(folder) / str(step) / POSITION_FILE):
            raise ValueError("the position is missing, or no file")
        position: Position = _read(folder, step, "position", ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())
        if not isinstance(position, dict) or not position:
            raise ValueError("the position is not what was saved")
        if DIGEST in position and (position != _signed(position) or position["step"] != step):
            raise ValueError("the position is not what was saved")
        return position


def _damage(place: PathLike, *, digest: str | None = None, share: slice = read_back.ALL, prefix: str = "") -> str:
    """Return why the files of a checkpoint do not hold what was saved; "" where they do.

    Args:
      place: the folder of the checkpoint, which may have a temporary name.
      digest: that the position has; None takes the one that stands in it.
      share: as `find_damage`.
      prefix: with which the paths of the arrays begin that are read.

    Raises:
      OSError: storage failed to read them.
    """
    try:
        position = files.read_object(as_path(place) / POSITION_FILE, "position")
    except (OSError, ValueError) as error:
        if failed := failed_read(error, place):
            raise failed from None
        return str(error)
    is_whole = DIGEST not in position or position == _signed(position)
    if not is_whole or digest not in (None, position.get(DIGEST)):
        return "the position is not what was saved"
    sums = {path: text for path, text in position.get(ARRAYS, {}).items() if path.startswith(prefix)}
    return read_back.find_damage(place, sums, share)


def _signed(position: Position) -> Position:
    """Return a position with a digest of itself, which tells a damaged one."""
    body = {name: value for name, value in position.items() if name != DIGEST}
    return body | {DIGEST: files.digest(body)}


def write_position(folder: PathLike, step: int, position: Position) -> None:
    """Complete a checkpoint by its position, where parameters are there already; `Checkpoints.save` writes both.

    Args:
      folder: the run's `checkpoints`.
      step: of the checkpoint.
      position: where the run stands.
    """
    place = absolute(folder) / str(step)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
        writer.save(place / "position", args=ocp.args.JsonSave(_signed(position | {"step": step})))
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
      UserError: there is no such checkpoint, or it holds another network's parameters, or NaN or infinity.
      DamagedCheckpoint: it cannot be read, or holds other numbers than were saved.
    """
    found = latest_step(folder) if step is None else step
    if found not in steps(folder):
        place = folder if step is None else as_path(folder) / str(step)
        raise UserError("checkpoint", place, "none there; train the run first")
    check_on_all_hosts(folder, found, PARAMS)
    target, _ = network.split(placed_params(network, mesh))
    _check_network(folder, found, target)
    with damage_errors(folder, found):
        params: Params = _read(
            folder, found, "params", ocp.StandardCheckpointHandler(), ocp.args.StandardRestore(target)
        )
    _verify(folder, found, {"params": params})
    _check_finite(folder, found, params)
    return params


def _check_network(folder: PathLike, step: int, target: Params) -> None:
    """Raise UserError where a checkpoint holds other parameters than a network's, by names and shapes."""
    stored = _read_position(folder, step).get(ARRAYS)
    if stored is None:  # written without checksums, as by a conversion
        with damage_errors(folder, step), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            metadata = reader.metadata(absolute(folder) / str(step) / "params").item_metadata
        found = checksums.shapes({"params": metadata.tree})
    else:
        of_params = {path: text for path, text in stored.items() if path.startswith(PARAMS)}
        found = checksums.shapes_of(of_params)
    if found != checksums.shapes({"params": target}):
        hint = "does not hold this network's parameters; evaluate it with the config that it was trained with"
        raise UserError("checkpoint", as_path(folder) / str(step), hint)


def _checksums(state: TrainState) -> dict[str, str]:
    return checksums.checksums({"params": state.params, "optimizer": state.opt_state})


def _verify(folder: PathLike, step: int, tree: dict[str, Any]) -> None:
    """Raise DamagedCheckpoint where restored arrays are not those that were saved."""
    stored = _read_position(folder, step).get(ARRAYS)
    if stored is not None and (path := checksums.differing(tree, stored)):
        raise DamagedCheckpoint(folder, step, f"{path} is not what was saved")


def _check_finite(folder: PathLike, step: int, params: Params) -> None:
    """Raise UserError where a checkpoint holds parameters that are NaN or infinity, as no training saves them."""
    if name := first_not_finite(params):
        hint = f"{name} {NOT_FINITE}; remove that folder to use the checkpoint before, or train again"
        raise UserError("checkpoint", as_path(folder) / str(step), hint)


def save_base(folder: PathLike, frozen: Params | None) -> None:
    """Write the frozen base of adapters, which is the same at every step; over what a killed run left there.

    Raises:
      OSError: there is no room.
    """
    with storage_errors(folder), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        save_args = jax.tree.map(by_layer, frozen)
        writer.save(absolute(folder), args=ocp.args.StandardSave(frozen, save_args=save_args), force=True)
    found = checksums.checksums(frozen)
    processes.on_primary(lambda: files.write_json(as_path(folder) / BASE_ARRAYS, found, "workdir"))


def restore_base(folder: PathLike, network: Network, mesh: Mesh | None = None) -> Params:
    """Restore the frozen base of a network with adapters.

    Args:
      folder: of `save_base`.
      network: whose base it is.
      mesh: to lay it out on; the first device where None.

    Raises:
      UserError: the base is not there, is damaged, or holds NaN or infinity.
    """
    if not as_path(folder).is_dir():
        raise UserError("base", folder, "none there; the adapters of this run need the base that they were trained on")
    _, target = network.split(placed_params(network, mesh))
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        base: Params = reader.restore(absolute(folder), args=ocp.args.StandardRestore(target))
    stored = as_path(folder) / BASE_ARRAYS
    if stored.exists() and (path := checksums.differing(base, files.read_json(stored, "base"))):
        raise UserError("base", folder, f"is damaged ({path} is not what was saved); restore its files")
    if name := first_not_finite(base):
        raise UserError("base", folder, f"{name} {NOT_FINITE}; restore its files, or train again")
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
