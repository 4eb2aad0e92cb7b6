"""The commands that train and score a point."""

from collections.abc import Mapping
from typing import Any

from launch.sweep.points import Point


def train_command(point: Point) -> list[str]:
    """Return the module that trains a point, and its arguments."""
    return [
        "coi_jax.train",
        "--config",
        point.base,
        "--workdir",
        str(point.folder),
        *override_flags(point.overrides),
    ]


def evaluate_command(point: Point) -> list[str]:
    """Return the module that scores a point, and its arguments: a config too where the point is not tuned."""
    config = [] if point.is_tuned else ["--config", point.base, *override_flags(point.overrides)]
    tests = ",".join(point.config.evaluation.tests)
    return ["coi_jax.evaluate", *config, "--workdir", str(point.folder), "--tasks", tests]


def override_flags(overrides: Mapping[str, Any]) -> list[str]:
    """Return overrides as the flags that `coi_jax.common.cli.split_overrides` reads back: `--config.seed=1`."""
    return [f"--config.{name}={value if isinstance(value, str) else repr(value)}" for name, value in overrides.items()]
