"""Scores against the settings of a sweep: a panel for each field that varies, a line for each arm and test set."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.common.wording import count_of
from coi_jax.data.arms import sort_arms
from coi_jax.reporting.figure6 import PALETTE
from coi_jax.reporting.figure_files import write_images
from coi_jax.reporting.run_records import Record, Records

METRIC, TITLE = "content_rouge_l", "ROUGE-L of the steps' content"
WIDTH, HEIGHT = 5.4, 4.2
LOG_RATIO = 20  # of the largest value to the smallest, from which an axis is logarithmic


@dataclass(frozen=True)
class Line:
    """The scores of an arm on a test set against one field.

    Attributes:
      arm: its name.
      test_set: its name.
      field: of the config.
      points: each value of the field, with the scores of the runs that have it.
    """

    arm: str
    test_set: str
    field: str
    points: dict[Any, list[float]]


def write(records: Records, folder: PathLike) -> list[str]:
    """Write the figure as PNG, SVG and PDF, with its numbers as JSON, and return the files' names.

    Raises:
      UserError: the runs differ in nothing but arm and seed.
    """
    lines = make_lines(records)
    cells = [
        {"arm": line.arm, "test_set": line.test_set, "field": line.field, "value": value, "scores": scores}
        for line in lines
        for value, scores in line.points.items()
    ]
    files.write_json(f"{folder}/figure_sweep.json", {"metric": METRIC, "cells": cells})
    return ["figure_sweep.json", *write_images(draw(lines), "figure_sweep", folder)]


def make_lines(records: Records) -> list[Line]:
    """Return the lines: of each field in which runs of one arm differ, for each arm and test set.

    Raises:
      UserError: there is no such field.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for row in records.rows:
        if METRIC in row.scores:
            groups.setdefault((row.arm, row.test_set), []).append(row)
    lines = [
        Line(arm, test, field, _points(rows, field))
        for field in dict.fromkeys(map(_whole, records.varying))
        for (arm, test), rows in groups.items()
        if len({_value(row, field) for row in rows}) > 1
    ]
    if not lines:
        found = count_of(len(records.rows), "result")
        raise UserError("--figure sweep", found, "needs runs of one arm that differ in a field of their config")
    return lines


def _whole(field: str) -> str:
    """Return the field that an entry by chain length belongs to: the shares of a mixture are one setting."""
    mapping, _, key = field.rpartition(".")
    return mapping if key.isdecimal() else field


def _value(row: Record, field: str) -> Any:
    value: Any = row.config.model_dump(mode="json")
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, dict):
        return ", ".join(
            f"{key}: {part:g}" if isinstance(part, float) else f"{key}: {part}" for key, part in value.items()
        )
    return value if isinstance(value, int | float | bool) else str(value)


def _points(rows: Sequence[Record], field: str) -> dict[Any, list[float]]:
    points: dict[Any, list[float]] = {}
    for row in rows:
        points.setdefault(_value(row, field), []).append(row.scores[METRIC].value)
    return dict(sorted(points.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def draw(lines: Sequence[Line]) -> Figure:
    """Return the figure."""
    fields = list(dict.fromkeys(line.field for line in lines))
    figure = Figure(figsize=(WIDTH * len(fields) + 1.6, HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(fields), squeeze=False, sharey=True)[0]
    keys = [(arm, test) for arm in sort_arms(line.arm for line in lines) for test in _tests(lines)]
    styles = dict(zip(keys, itertools.cycle(PALETTE), strict=False))
    for axes, field in zip(panels, fields, strict=True):
        chosen = [line for line in lines if line.field == field]
        _draw_panel(axes, chosen, styles)
    panels[0].set_ylabel(TITLE)
    handles = {text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _tests(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.test_set for line in lines))


def _draw_panel(axes: Axes, lines: Sequence[Line], styles: dict[tuple[str, str], tuple[str, str]]) -> None:
    values = list(dict.fromkeys(value for line in lines for value in line.points))
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = {value: value if is_number else place for place, value in enumerate(values)}
    for line in lines:
        color, marker = styles[line.arm, line.test_set]
        means = [statistics.fmean(scores) for scores in line.points.values()]
        spread = [statistics.stdev(scores) if len(scores) > 1 else 0.0 for scores in line.points.values()]
        axes.errorbar(
            [places[value] for value in line.points],
            means,
            yerr=spread if any(spread) else None,
            color=color,
            marker=marker,
            capsize=2,
            label=f"{line.arm}, {line.test_set}",
        )
    if is_number and min(values) > 0 and max(values) / min(values) >= LOG_RATIO:
        axes.set_xscale("log")
    if not is_number:
        axes.set_xticks(range(len(values)), [str(value) for value in values], rotation=20, ha="right")
    axes.set_xlabel(lines[0].field)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
