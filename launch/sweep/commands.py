"""The commands that train and score a point."""

from coi_jax.common import cli
from launch.sweep.points import Point


def train_command(point: Point) -> list[str]:
    """Return the module that trains a point, and its arguments."""
    return [
        "coi_jax.train",
        "--config",
        point.base,
        "--workdir",
        str(point.folder),
        *cli.override_flags(point.overrides),
    ]


def evaluate_command(point: Point) -> list[str]:
    """Return the module that scores a point, and its arguments: a config too where the point is not tuned."""
    config = [] if point.is_tuned else ["--config", point.base, *cli.override_flags(point.overrides)]
    tests = ",".join(point.config.evaluation.tests)
    return ["coi_jax.evaluate", *config, "--workdir", str(point.folder), "--tasks", tests]
