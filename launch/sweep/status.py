"""How far each point of a sweep is, from its run folder alone: so for every backend, and for folders in a bucket."""

import datetime
from collections.abc import Sequence
from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import is_held
from coi_jax.common.wording import count_of
from coi_jax.config.run import StepsConfig
from coi_jax.runs.metrics_rows import read_metrics
from launch.sweep.point_state import SWEEP_LOCK, newest_step, state, total_steps
from launch.sweep.points import Point

HEADER = ("id", "state", "step", "ETA", "tokens/s", "loss", "validation", "scores")
SCORE = "content_rouge_l"  # ROUGE-L of the steps' content
Row = tuple[str, ...]


def status_row(point: Point) -> Row:
    """Return a point's id, state, progress, speed, losses and scores; "" for what is not known yet."""
    rows = _metrics(point)
    last = next((row for row in reversed(rows) if "loss" in row), {})
    validation = next((row["validation_loss"] for row in reversed(rows) if "validation_loss" in row), None)
    step, total = last.get("step"), _total_steps(point)
    progress = "" if step is None else f"{step:,}" + (f"/{total:,} ({100 * step // total}%)" if total else "")
    return (
        point.id,
        _state(point),
        progress,
        _eta(step, total, last.get("seconds_per_step")),
        _number(last.get("tokens_per_second"), ",.0f"),
        _number(last.get("loss"), ".3f"),
        _number(validation, ".3f"),
        " ".join(f"{test} {value:.1f}" for test, value in _scores(point)),
    )


def counts(points: Sequence[Point]) -> str:
    """Return how many points are in each state, in words."""
    states = [_state(point) for point in points]
    return f"{count_of(len(points), 'point')}: " + ", ".join(
        f"{states.count(each)} {each}" for each in dict.fromkeys(states)
    )


def _state(point: Point) -> str:
    found = state(point)
    if found in ("new", "partial") and is_held(point.folder, SWEEP_LOCK):
        return "running"
    return "stopped" if found == "partial" else found


def _metrics(point: Point) -> list[dict[str, Any]]:
    path = point.folder / "metrics.jsonl"
    try:
        return read_metrics(path) if path.exists() else []
    except UserError:
        return []  # its last line is being written


def _total_steps(point: Point) -> int | None:
    """Return the steps of the whole run: of the config, or as its newest checkpoint says."""
    length = point.config.train.length
    if isinstance(length, StepsConfig):
        return length.count
    newest = newest_step(point)
    try:
        return None if newest is None else total_steps(point.folder / "checkpoints" / str(newest))
    except UserError:
        return None


def _eta(step: int | None, total: int | None, seconds: float | None) -> str:
    if step is None or total is None or seconds is None or step >= total:
        return ""
    return str(datetime.timedelta(seconds=round((total - step) * seconds)))


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else ""


def _scores(point: Point) -> list[tuple[str, float]]:
    found = []
    for test in point.config.evaluation.tests:
        path = point.folder / "eval" / test / "results.json"
        try:
            found.append((test, files.read_value(path, ("scores", SCORE, "value"), float, "results")))
        except (UserError, OSError):
            continue  # not scored yet, or being written
    return found
