"""Tells how good a language model was for a build: how many replies could be used, and how often they were right."""

from collections.abc import Mapping, Sequence
from typing import Any

from coi_jax.common.wording import count_of
from data_pipeline.build.engine.stage_runner import USAGE, Stage
from data_pipeline.build.pipeline import BuildResult
from data_pipeline.build.review import stage_accuracy
from data_pipeline.text_tables import text_table

REPLY_COLUMNS = ("questions", "at_once", "repaired", "unusable", "declined")


def replies(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return what the replies were worth, for each stage that asked a model; none of stages of an earlier version."""
    found = []
    for stage in stages:
        usage = next(iter(stage.read(USAGE)), {})
        if usage.get("calls", 0) + usage.get("declined", 0) and "questions" in usage:
            found.append({"stage": stage.name} | {name: usage[name] for name in REPLY_COLUMNS})
    return found


def truth(built: BuildResult) -> list[dict[str, Any]]:
    """Return how right each stage was, where the tasks of a build are procedural operations; else nothing."""
    return [score.row() for score in stage_accuracy.scores(built)] if stage_accuracy.is_known(built) else []


def failure_line(failures: Mapping[str, int]) -> list[str]:
    """Return a line on the attempts that got no reply, by reason; none where there are none."""
    if not failures:
        return []
    reason, most = max(failures.items(), key=lambda item: item[1])
    return [f"{sum(failures.values()):,} attempts got no reply and were made again, most of them ({most:,}): {reason}"]


def reply_line(counts: Mapping[str, int]) -> list[str]:
    """Return a line on where the replies came from, by `Client.counts`; none for a build that needed no reply."""
    stored, asked = counts.get("stored", 0), counts.get("asked", 0)
    if not stored + asked:
        return []
    return [f"{count_of(asked, 'reply', 'replies')} asked for, {stored:,} taken from the store"]


def lines(asked: Sequence[dict[str, Any]], compared: Sequence[dict[str, Any]]) -> list[str]:
    """Return lines for the terminal, of what `replies` and `truth` return; none for a build that asked no model."""
    if not asked:
        return []
    headers = ["stage", "questions", "usable at once", "after a repair", "not usable", "declined"]
    found = ["", *text_table(headers, [list(row.values()) for row in asked])]
    if judged := [row for row in compared if row["total"]]:
        headers = ["against the computed truth", "judged", "agrees", "precision", "recall"]
        found += ["", *text_table(headers, map(_compared, judged))]
    return found


def _compared(row: dict[str, Any]) -> list[object]:
    shares = (row["agreed"] / row["total"], row["precision"], row["recall"])
    return [row["stage"], row["total"], *("–" if share is None else f"{100 * share:.1f}%" for share in shares)]
