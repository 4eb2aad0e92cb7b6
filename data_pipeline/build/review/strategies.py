"""Tells how often each strategy worked a right answer, by the category of the chain's last step."""

import collections
from collections.abc import Sequence
from typing import Any

from data_pipeline.build.engine.stage_runner import REJECTED
from data_pipeline.build.pipeline import BuildResult
from data_pipeline.build.stages import working
from data_pipeline.text_tables import text_table

HEADERS = ("strategy", "category", "asked", "right answer", "right in every step")


def rows(built: BuildResult) -> list[dict[str, Any]]:
    """Return the counts of each strategy: of all categories (None) first, then by category; none where none worked."""
    return [row for strategy in working.STRATEGIES for row in _rows(built, strategy)]


def _rows(built: BuildResult, strategy: str) -> list[dict[str, Any]]:
    stage = built.annotations.get(f"{working.STAGE}{strategy}")
    if stage is None:
        return []
    asked, right, kept = (collections.Counter[str | None]() for _ in range(3))
    for row in stage.read():
        for counts in (asked, right, kept):
            counts.update([None, row["category"] or "unknown"])
    for row in stage.read(REJECTED):
        keys = [None, row["row"]["steps"][-1]["category"] or "unknown"]
        asked.update(keys)
        right.update(keys if row["reason"] == working.WRONG_STEP else [])
    return [
        {"strategy": strategy, "category": key, "asked": asked[key], "right_answer": right[key], "right": kept[key]}
        for key in sorted(asked, key=lambda key: (key is not None, key))
    ]


def lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return lines for the terminal, of what `rows` returns: of all categories together."""
    totals = [row for row in found if row["category"] is None]
    if not totals:
        return []
    cells = [
        (row["strategy"], row["asked"], *(_share(row, key) for key in ("right_answer", "right"))) for row in totals
    ]
    return ["", *text_table([name for name in HEADERS if name != "category"], cells)]


def _share(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:,} ({100 * row[key] / row['asked']:.1f}%)"
