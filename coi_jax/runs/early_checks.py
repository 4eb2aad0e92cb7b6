"""Finds mistakes in the folder of a run before JAX is imported, which takes seconds."""

from etils import epath

from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import LOCK
from coi_jax.common.storage import PathLike, as_path
from coi_jax.config.run import RunConfig, read_run_config
from coi_jax.data.task_specs import check_names

CONFIG = "config.json"


def check_training(config: RunConfig, workdir: PathLike) -> None:
    """Raise UserError where a config names what there is not, or a run cannot be in a folder."""
    check_names(config)
    check_folder(as_path(workdir, "workdir"))


def check_run(workdir: PathLike) -> None:
    """Raise UserError where a folder holds no run."""
    read_run_config(as_path(workdir, "workdir") / CONFIG, "workdir")


def check_folder(path: epath.Path) -> None:
    """Raise UserError where a path is a file, or a folder of something else than a run."""
    if path.exists() and not path.is_dir():
        raise UserError("workdir", path, "is a file; name a folder")
    # The config first, which another host may be writing meanwhile.
    names = [inner.name for inner in path.iterdir()] if path.is_dir() else []
    is_writing = any(name.startswith(f".{CONFIG}") for name in names)
    if any(name != LOCK for name in names) and CONFIG not in names and not is_writing:
        raise UserError("workdir", path, "holds files but no config.json; name an empty or a new folder")
