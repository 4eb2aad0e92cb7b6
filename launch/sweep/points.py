"""A sweep as a list of points: each a validated config with an id and a run folder of its own."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from etils import epath

from coi_jax.common import files
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.storage import PathLike, as_path, check_not_kept
from coi_jax.config import loading
from coi_jax.config.run import LoggingConfig, RunConfig, load_config
from coi_jax.data import task_specs
from coi_jax.data.arms import find_arm

MOST_POINTS = 10_000  # no sweep is as large; one that never ends is
_READABLE = 120  # characters of an id before its hash; file systems allow 255
_SHORT = 8  # characters of each value where an id would be longer
_HASH = 6  # hexadecimal digits of it


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    id: str
    base: str  # the config file that `overrides` change
    overrides: Mapping[str, Any]
    config: RunConfig
    folder: epath.Path

    @property
    def is_tuned(self) -> bool:
        """Return whether the point is trained before it is scored; a prompted baseline is not."""
        return find_arm(self.config.arm).is_tuned

    @property
    def group(self) -> tuple[Any, ...]:
        """Return what points have in common that can share compiled programs and base weights."""
        return self.config.model, self.config.lora, self.config.weights, self.config.mesh


def expand(sweep: PathLike, extra: Mapping[str, Any], out: PathLike | None) -> list[Point]:
    """Return the points of a sweep file, every one validated; `extra` overrides fields of all of them.

    Args:
      sweep: a Python file with `CONFIG`, the path of a config file, and `sweep()`, which yields dotted overrides.
      extra: dotted overrides that win over the sweep's own.
      out: the folder of the run folders; None takes `runs/<name of the sweep file>`.

    Raises:
      UserError: the file is not a sweep, a point's config is wrong, two points are the same, or `out` is a file, or the
        folder of a dataset or a run.
    """
    module = _load(sweep)
    folder = as_path(out, "--out") if out is not None else as_path("runs") / Path(sweep).stem
    check_not_kept(folder, "--out")
    points: dict[RunConfig, Point] = {}
    for number, overrides in enumerate(_overrides(module, sweep), 1):
        point = _point(module.CONFIG, overrides, extra, folder, number)
        run = _without_logging(point.config)
        if run in points:
            raise UserError(
                "sweep",
                f"points {list(points).index(run) + 1} and {number} of {sweep}",
                "are the same config; let them differ in a field, such as seed",
            )
        points[run] = point
    if not points:
        raise UserError("sweep", sweep, "sweep() yields no point; yield at least one dict")
    return list(points.values())


def _load(path: PathLike) -> ModuleType:
    module = loading.load_module(path, "sweep", "configs/sweeps/")
    for name in ("CONFIG", "sweep"):
        if not hasattr(module, name):
            raise UserError("sweep", path, f"has no {name}; see configs/sweeps/quickstart.py")
    if not isinstance(module.CONFIG, str) or not callable(module.sweep):
        hint = "needs CONFIG, the path of a config file, and sweep(), a function; see configs/sweeps/quickstart.py"
        raise UserError("sweep", path, hint)
    return module


def _overrides(module: ModuleType, path: PathLike) -> list[dict[str, Any]]:
    try:
        points = list(itertools.islice(module.sweep() or (), MOST_POINTS + 1))
    except Exception as error:
        raise UserError("sweep", path, f"sweep() raised an error: {loading.reason(error)}") from None
    if len(points) > MOST_POINTS:
        raise UserError("sweep", path, f"sweep() yields more than {MOST_POINTS:,} points; does it end?")
    for number, point in enumerate(points, 1):
        if not isinstance(point, dict) or not all(isinstance(name, str) for name in point):
            raise UserError("sweep", f"point {number}, {point!r}", 'yield dicts such as {"arm": "coi12", "seed": 1}')
    return points


def _point(base: str, own: Mapping[str, Any], extra: Mapping[str, Any], out: epath.Path, number: int) -> Point:
    overrides = {**own, **extra}
    try:
        config = load_config(base, overrides)
        task_specs.check_names(config)
        if not find_arm(config.arm).is_tuned and not config.weights.folder:
            hint = f"name the published folder whose model arm {config.arm} prompts"
            raise UserError("config.weights.folder", None, hint)
        for test in config.evaluation.tests:
            task_specs.evaluation_task(config, test)
    except UserError as error:
        raise UserError(f"point {number}: {error.field}", error.value, error.hint) from None
    id = f"{_readable(config.arm, overrides, own)}-{files.digest(_identity(config))[:_HASH]}"
    return Point(id, base, overrides, config, out / id)


def _without_logging(config: RunConfig) -> RunConfig:
    """Return a config that is the same wherever its metrics go: so a sweep goes on that is logged elsewhere now."""
    return config.model_copy(update={"logging": LoggingConfig()})


def _identity(config: RunConfig) -> dict[str, Any]:
    """Return what an id is a hash of: without the fields at their defaults, so that one added later changes no id."""
    return _without_logging(config).model_dump(mode="json", exclude_defaults=True)


def _readable(arm: str, overrides: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Return the arm, then what else is set, the seed first: `coi12-seed1-learning_rate0.001`.

    Args:
      arm: of the point.
      overrides: all that is set.
      own: what the sweep file sets; a long id leaves out the rest, then the ends of values, before names of fields.
    """
    for names, length in ((overrides, None), (own, None), (own, _SHORT), (own, 0)):
        shown = [name for name in names if name != "arm" and not name.startswith("logging.")]
        ordered = sorted(shown, key=lambda name: (name != "seed", name))
        texts = (re.sub(r"[^A-Za-z0-9._-]+", "_", str(overrides[name]))[:length] for name in ordered)
        parts = (f"{name.split('.')[-1]}{text}".rstrip("-_.") for name, text in zip(ordered, texts, strict=True))
        id = "-".join([arm, *parts])
        if len(id) <= _READABLE:
            break
    return id[:_READABLE].rstrip("-_.")


def choose(points: list[Point], only: list[str]) -> list[Point]:
    """Return the points whose ids, or beginnings of ids, stand in `only`; all where it is empty.

    Raises:
      UserError: one of `only` is the beginning of no id.
    """
    for name in only:
        if not any(point.id.startswith(name) for point in points):
            raise UserError("--only", name, nearest(name, [point.id for point in points]))
    return [point for point in points if not only or point.id.startswith(tuple(only))]
