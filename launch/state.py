"""How far a point of a sweep is, from what its run folder holds."""

from typing import Literal

from launch.points import Point

State = Literal["new", "partial", "done"]


def state(point: Point) -> State:
    """Whether a point is still to begin, to go on, or done: trained to its last step and scored on every test set."""
    if is_trained(point) and is_scored(point):
        return "done"
    return "partial" if (point.folder / "config.json").exists() else "new"


def is_trained(point: Point) -> bool:
    """Whether the checkpoint of the last step is there."""
    return (point.folder / "trained.json").exists()


def is_scored(point: Point) -> bool:
    """Whether every test set of the point's config has its results."""
    return all((point.folder / "eval" / test / "results.json").exists() for test in point.config.evaluation.tests)
