"""The scores of an evaluation as a table in the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

# Key in `results.json` → what stands above its column.
COLUMNS = {
    "rouge_l": "ROUGE-L\nwith labels",
    "content_rouge_l": "ROUGE-L\nof content",
    "content_exact_match": "whole chain\nexact",
    "final_exact_match": "final answer\nexact",
    "well_formed": "well\nformed",
}


def show(found: Sequence[dict[str, Any]]) -> None:
    """Prints a row for each test set; `found` are contents of `results.json`."""
    table = Table(title=f"{found[0]['arm']}: scores x 100 with 95% intervals", title_justify="left")
    table.add_column("test set")
    table.add_column("examples", justify="right")
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    table.add_column("labels alone:\nROUGE-L", justify="right")
    table.add_column("exact at step\n1 / 2 / …", justify="right")
    for result in found:
        table.add_row(*_cells(result))
    Console(width=None if Console().is_terminal else 140).print(table)


def _cells(result: dict[str, Any]) -> list[str]:
    scores = result["scores"]
    steps = [scores[f"step{step['step']}_exact_match"]["value"] for step in result["steps"]]
    return [
        result["task"],
        str(result["examples"]),
        *(_score(scores.get(key)) for key in COLUMNS),
        _number(result["floor"].get("rouge_l")),
        " / ".join(f"{value:.0f}" for value in steps),
    ]


def _score(score: dict[str, float] | None) -> str:
    return "–" if score is None else f"{score['value']:.1f}\n{score['low']:.1f}–{score['high']:.1f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
