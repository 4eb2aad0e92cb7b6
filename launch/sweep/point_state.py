"""Tell how far a point of a sweep is, from what its run folder holds.

JAX is not imported: started here it would keep the accelerator from the runs.
"""

from typing import Literal

from etils import epath

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import FULL, check_absent, is_local
from coi_jax.runs.checkpoint_steps import steps
from launch.sweep.points import Point

State = Literal["new", "partial", "done", "damaged"]

CONFIG = "config.json"
SWEEP_LOCK = ".sweep.lock"  # of a point's folder, and of all points'; the trainer and the evaluator have their own


def check_writable(folder: epath.Path) -> None:
    """Write a file into the folder of a sweep and remove it; raise UserError where that is not allowed."""
    probe = folder / ".writable"
    is_new = is_local(folder) and not folder.exists()
    try:
        files.write_text(probe, "")
        probe.unlink()
        if is_new:
            folder.rmdir()
    except UserError as error:
        raise UserError("--out", folder, error.hint) from None
    except Exception as error:  # whatever the client of a bucket raises
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError("--out", folder, f"cannot be written ({reason}); name another folder") from None


def claim(point: Point) -> None:
    """Write the point's config into its folder, as the trainer would: a config file edited later cannot change it.

    Raises:
      UserError: the folder holds something that is no run.
    """
    if not (point.folder / CONFIG).exists():
        check_absent(point.folder, "--out")
        files.write_json(point.folder / CONFIG, point.config.model_dump(mode="json"))


def config_fault(point: Point) -> UserError | None:
    """Return what is wrong with the config in a point's folder; None where it is the point's, or not there yet."""
    path = point.folder / CONFIG
    try:
        if path.exists() and files.read_value(path, ("arm",), str, CONFIG) != point.config.arm:
            return UserError(CONFIG, path, f"is not of arm {point.config.arm}; restore the file, or remove the folder")
    except UserError as error:
        hint = error.hint.replace("write it again", "restore the file, or remove the folder to run the point again")
        return UserError(error.field, error.value, hint)
    return None


def state(point: Point) -> State:
    """Return how far a point is.

    It is to begin, to go on, or done (trained to its last step, scored on every test set); or the config in its folder
    is damaged, so that nothing there is known to be the point's.
    """
    if config_fault(point):
        return "damaged"
    if is_trained(point) and is_scored(point):
        return "done"
    return "partial" if (point.folder / CONFIG).exists() else "new"


def is_trained(point: Point) -> bool:
    """Return whether the newest whole checkpoint is of the last step, or the point is not tuned at all."""
    if not point.is_tuned:
        return True
    step = newest_step(point)
    if step is None:
        return False
    try:
        return step >= total_steps(point.folder / "checkpoints" / str(step))
    except (UserError, KeyError, TypeError):
        return False  # it is damaged: the trainer goes on from the one before


def is_scored(point: Point) -> bool:
    """Return whether every test set of the point's config has its results, of the newest checkpoint."""
    paths = [point.folder / "eval" / test / "results.json" for test in point.config.evaluation.tests]
    evaluation = point.config.evaluation
    folder = "best" if evaluation.checkpoint == "best" else "checkpoints"
    newest, count = str(max(steps(point.folder / folder), default=0)), evaluation.examples
    try:
        return all(path.exists() and _scored_step(path) == newest and _has_scored(path, count) for path in paths)
    except UserError:
        return False  # results are damaged: the evaluator writes them again


def newest_step(point: Point) -> int | None:
    """Return the step of a point's newest checkpoint; None where it has none."""
    return max(steps(point.folder / "checkpoints"), default=None)


def total_steps(checkpoint: epath.Path) -> int:
    """Return the steps of the whole run, as a checkpoint has them; raise UserError where it is damaged."""
    return files.read_value(checkpoint / "position" / "metadata", ("total_steps",), int, "checkpoint")


def _has_scored(results: epath.Path, count: int | None) -> bool:
    """Return whether results are of so many examples; None: of all that the test set has."""
    scored = files.read_value(results, ("examples",), int, "results")
    available = files.read_value(results, ("provenance", "available_examples"), int, "results")
    return scored == min(count or available, available)


def _scored_step(results: epath.Path) -> str:
    """Return the step of a checkpoint that is spelled `600-1f3a…`, step and hash."""
    return files.read_value(results, ("provenance", "checkpoint"), str, "results").split("-")[0]
