"""The scores of an evaluation as a table in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from coi_jax.common import terminal
from coi_jax.common.wording import count_of
from coi_jax.evaluation.benchmark_scores import BENCHMARK_SCORES
from coi_jax.evaluation.scores import EXACT_MATCH, SCORES, Score, ScoreKey


def _columns(scores: Mapping[str, Score]) -> dict[str, str]:
    return {score.key: score.column for score in scores.values() if score.column is not None}


# Key in `results.json` → heading of its column; those of other benchmarks are shown where there are such scores.
COLUMNS, BENCHMARK_COLUMNS = _columns(SCORES), _columns(BENCHMARK_SCORES)


def show(results: Sequence[dict[str, Any]]) -> None:
    """Print a row for each test set, and for its tasks and their mean; `results` are contents of `results.json`."""
    found = {key for result in results for key in result["scores"]}
    columns = COLUMNS | {key: heading for key, heading in BENCHMARK_COLUMNS.items() if key in found}
    table = Table(title=f"{results[0]['arm']}: scores x 100 with 95% intervals", title_justify="left")
    table.add_column("test set", no_wrap=True)
    table.add_column("examples", justify="right")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    table.add_column("label-only\nROUGE-L", justify="right")
    table.add_column("exact at step\n1 / 2 / …", justify="right")
    for result in results:
        table.add_row(*_cells(result, list(columns)))
        for row in _task_rows(result, list(columns)):
            table.add_row(*row)
    terminal.console().print(table)


def _cells(result: dict[str, Any], columns: Sequence[str]) -> list[str]:
    scores = result["scores"]
    steps = [scores[str(ScoreKey(EXACT_MATCH, step["step"]))]["value"] for step in result["steps"]]
    return [
        result["task"],
        str(result["examples"]),
        *(_format_score(scores.get(key)) for key in columns),
        _format_number(result["label_only_baseline"].get("rouge_l")),
        " / ".join(f"{value:.0f}" for value in steps),
    ]


def _task_rows(result: dict[str, Any], columns: Sequence[str]) -> list[list[str]]:
    """Return a row for each task of a test set that is scored by tasks, and one for their mean."""
    by_task = result.get("by_task")
    if by_task is None:
        return []
    mean = {"examples": count_of(len(by_task["tasks"]), "task"), "scores": by_task["mean"]}
    rows = {**by_task["tasks"], "mean over tasks": mean}
    return [
        [f"  {name}", str(row["examples"]), *(_format_score(row["scores"].get(key)) for key in columns), "", ""]
        for name, row in rows.items()
    ]


def _format_score(score: dict[str, float] | None) -> str:
    return "–" if score is None else f"{score['value']:.1f}\n{score['low']:.1f}–{score['high']:.1f}"


def _format_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
