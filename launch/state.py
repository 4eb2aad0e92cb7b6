"""How far a point of a sweep is, from what its run folder holds.

Files are read as they lie: JAX started here would keep the accelerator from the runs.
"""

from pathlib import Path
from typing import Literal

from coi_jax import files
from launch.points import Point

State = Literal["new", "partial", "done"]

CONFIG = "config.json"


def claim(point: Point) -> None:
    """Writes the point's config into its folder, as the trainer would: a config file edited later cannot change it."""
    if not (point.folder / CONFIG).exists():
        files.write_json(point.folder / CONFIG, point.config.model_dump(mode="json"))


def state(point: Point) -> State:
    """Whether a point is still to begin, to go on, or done: trained to its last step and scored on every test set."""
    if is_trained(point) and is_scored(point):
        return "done"
    return "partial" if (point.folder / CONFIG).exists() else "new"


def is_trained(point: Point) -> bool:
    """Whether the newest whole checkpoint is of the last step."""
    steps = [int(path.name) for path in (point.folder / "checkpoints").glob("*") if path.name.isdigit()]
    return bool(steps) and max(steps) >= _total_steps(point.folder / "checkpoints" / str(max(steps)))


def _total_steps(checkpoint: Path) -> int:
    return files.read_json(checkpoint / "position" / "metadata", "checkpoint")["total_steps"]


def is_scored(point: Point) -> bool:
    """Whether every test set of the point's config has its results."""
    return all((point.folder / "eval" / test / "results.json").exists() for test in point.config.evaluation.tests)
