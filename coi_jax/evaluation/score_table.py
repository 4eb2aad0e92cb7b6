"""The scores of an evaluation as a table in the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from coi_jax.evaluation.scores import EXACT_MATCH, SCORES, ScoreKey

# Key in `results.json` → heading of its column.
COLUMNS = {score.key: score.column for score in SCORES.values() if score.column is not None}


def show(results: Sequence[dict[str, Any]]) -> None:
    """Print a row for each test set; `results` are contents of `results.json`."""
    table = Table(title=f"{results[0]['arm']}: scores x 100 with 95% intervals", title_justify="left")
    table.add_column("test set")
    table.add_column("examples", justify="right")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    table.add_column("label-only\nROUGE-L", justify="right")
    table.add_column("exact at step\n1 / 2 / …", justify="right")
    for result in results:
        table.add_row(*_cells(result))
    Console(width=None if Console().is_terminal else 140).print(table)


def _cells(result: dict[str, Any]) -> list[str]:
    scores = result["scores"]
    steps = [scores[str(ScoreKey(EXACT_MATCH, step["step"]))]["value"] for step in result["steps"]]
    return [
        result["task"],
        str(result["examples"]),
        *(_format_score(scores.get(key)) for key in COLUMNS),
        _format_number(result["label_only_baseline"].get("rouge_l")),
        " / ".join(f"{value:.0f}" for value in steps),
    ]


def _format_score(score: dict[str, float] | None) -> str:
    return "–" if score is None else f"{score['value']:.1f}\n{score['low']:.1f}–{score['high']:.1f}"


def _format_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
