"""Finds mistakes in the folder of a run before JAX is imported, which takes seconds."""

from etils import epath

from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import LOCK
from coi_jax.common.storage import PathLike, as_path
from coi_jax.config.run import RunConfig, read_run_config
from coi_jax.data.arms import find_arm
from coi_jax.data.task_specs import check_names
from coi_jax.runs import checkpoint_steps
from coi_jax.runs.damage import BEST

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"


def check_training(config: RunConfig, workdir: PathLike) -> None:
    """Raise UserError where a config names what there is not, or a run cannot be in a folder."""
    check_names(config)
    check_folder(as_path(workdir, "workdir"))


def check_run(workdir: PathLike) -> None:
    """Raise UserError where a folder holds no run, or one without the weights that are to be asked."""
    path = as_path(workdir, "workdir")
    config = read_run_config(path / CONFIG, "workdir")
    if not any(checkpoint_steps.steps(path / name) for name in (CHECKPOINTS, BEST)):
        check_needs_no_checkpoint(path, config)


def check_needs_no_checkpoint(path: epath.Path, config: RunConfig) -> None:
    """Raise UserError unless a run prompts published weights as they are: its arm is not tuned, and it names some."""
    if find_arm(config.arm).is_tuned:
        raise UserError("workdir", path, "has no checkpoint yet; train it first (python -m coi_jax.train)")
    if not config.weights.folder:
        hint = f"to ask that one, name its folder, with --config.arm={config.arm}"
        raise UserError("workdir", path, f"prompts the network of another run: {hint}")


def check_folder(path: epath.Path) -> None:
    """Raise UserError where a path is a file, or a folder of something else than a run."""
    if path.exists() and not path.is_dir():
        raise UserError("workdir", path, "is a file; name a folder")
    # The config first, which another host may be writing meanwhile.
    names = [inner.name for inner in path.iterdir()] if path.is_dir() else []
    is_writing = any(name.startswith(f".{CONFIG}") for name in names)
    if any(name != LOCK for name in names) and CONFIG not in names and not is_writing:
        raise UserError("workdir", path, "holds files but no config.json; name an empty or a new folder")
