"""Figure 6 of the paper from run records: scores by chain length, a line for each arm."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.data.arms import ARMS, VARIANTS, find_arm, sort_arms
from coi_jax.data.test_sets import TEST_SETS, chain_length
from coi_jax.evaluation.scores import SCORES
from coi_jax.reporting.figure_files import write_images
from coi_jax.reporting.run_records import Cell, Records

# The scores of the figure: the key in results.json, and the title of its panel.
PANELS = {score.key: score.panel for score in SCORES.values() if score.panel is not None}

# Okabe and Ito's colors, which color-blind readers tell apart, with a marker for each; then lighter ones for more arms.
PALETTE = (
    ("#000000", "d"),
    ("#56B4E9", "P"),
    ("#8A6D00", "X"),
    ("#D55E00", "o"),
    ("#E69F00", "v"),
    ("#CC79A7", "p"),
    ("#0072B2", "s"),
    ("#009E73", "^"),
    ("#999999", "D"),
    ("#882255", "<"),
    ("#44AA99", ">"),
    ("#332288", "h"),
    ("#DDCC77", "*"),
    ("#AA4499", "H"),
    ("#117733", "8"),
    ("#661100", "."),
)
STYLES = dict(zip(ARMS, itertools.cycle(PALETTE), strict=False))
# An arm on a variant has the color and marker of the arm itself, and lines of its own.
DASHED = ("--", ":", (0, (1, 2)), "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (6, 6)), (0, (10, 2, 2, 2)), (0, (2, 4)))
LINES = dict(zip(VARIANTS, itertools.cycle(DASHED), strict=False))
TITLE = "How well models carry out chains of instructions, by the number of steps in the chain"
GRAY = "#777777"
DASHES = (0, (4, 3))
SPREAD = 0.5  # of all arms over one length, so that their markers and intervals do not hide one another
ARM_SPREAD = 0.16  # of two arms, at most


def write(records: Records, folder: PathLike) -> list[str]:
    """Write the figure as PNG, SVG and PDF, with its numbers as JSON, and return the files' names.

    The same records give the same bytes.
    """
    cells = [cell.to_dict() for cell in make_cells(records)]
    files.write_json(f"{folder}/figure6.json", {"cells": cells})
    return [*write_images(draw(records), "figure6", folder), "figure6.json"]


def make_cells(records: Records) -> list[Cell]:
    """Return the points of the figure: every arm at every chain length that it was scored on.

    Raises:
      UserError: no run was scored on chains of a known length.
    """
    tests = [test for test in records.test_sets if chain_length(test)]
    if not tests:
        raise UserError("--figure 6", ", ".join(records.test_sets), "needs test sets of chains, such as coi2_test")
    tests.sort(key=lambda test: (TEST_SETS[test].group, chain_length(test)))
    cells = [records.cell(arm, test, metric) for metric in PANELS for arm in records.arms for test in tests]
    return [cell for cell in cells if cell]


def draw(records: Records) -> Figure:
    """Return the figure: a row for each group of test sets, named where there are several, a panel for each score."""
    cells = make_cells(records)
    groups = sorted({_group(cell) for cell in cells})
    figure = Figure(figsize=(10, 1.4 + 3.9 * len(groups)), layout="constrained")
    grid = figure.subplots(len(groups), len(PANELS), squeeze=False)
    for row, group in zip(grid, groups, strict=True):
        for axes, metric in zip(row, PANELS, strict=True):
            chosen = [cell for cell in cells if (_group(cell), cell.metric) == (group, metric)]
            _draw_panel(axes, metric, chosen, records)
        if len(groups) > 1:
            row[0].set_ylabel(_row_title(group, cells), fontsize=10)
    key = functools.partial(figure.legend, frameon=False, fontsize=9.5, title_fontsize=13.5)
    key(handles=_arm_key(records.arms), loc="outside upper center", ncols=3, title=TITLE)
    has_baseline = any(_baseline(metric, cells, records) for metric in PANELS)
    marks = key(
        handles=_marks_key(cells, has_baseline), loc="outside lower center", ncols=4, title=describe(records, cells)
    )
    marks.get_title().set_fontsize(9.5)
    return figure


def describe(records: Records, cells: Sequence[Cell]) -> str:
    """Return what was measured: the chains behind each point, the seeds of the runs, and the data of the test sets."""
    counts = sorted({records.examples(cell.test_set) for cell in cells})
    seeds = sorted({record.seed for cell in cells for record in cell.records})
    examples = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
    runs = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean over seeds {', '.join(map(str, seeds))}"
    data = ", ".join(sorted({cell.source for cell in cells}))
    return f"{examples} chains for each length; {runs}; data: {data}"


def _row_title(group: str, cells: Sequence[Cell]) -> str:
    sources = sorted({cell.source for cell in cells if _group(cell) == group})
    return f"{group}*_test\n{', '.join(sources)}"


def _group(cell: Cell) -> str:
    return TEST_SETS[cell.test_set].group


def _draw_panel(axes: Axes, metric: str, cells: Sequence[Cell], records: Records) -> None:
    lengths = sorted({_length(cell) for cell in cells})
    arms = sort_arms(cell.arm for cell in cells)
    spread = min(ARM_SPREAD, SPREAD / len(arms))
    for place, arm in enumerate(arms):
        _draw_arm(axes, [cell for cell in cells if cell.arm == arm], spread * (place - (len(arms) - 1) / 2))
    _draw_baseline(axes, metric, cells, records)
    axes.set(xlabel="steps in the chain", xticks=lengths, xlim=(lengths[0] - 0.3, lengths[-1] + 0.3), ylim=(-3, 103))
    axes.set_title(PANELS[metric], loc="left", fontsize=11)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _length(cell: Cell) -> int:
    return chain_length(cell.test_set) or 0


def _draw_arm(axes: Axes, cells: Sequence[Cell], shift: float) -> None:
    """Draw a line with its intervals; markers of lengths that the arm was tuned on are filled, others are hollow."""
    arm = find_arm(cells[0].arm)
    color, marker, line = style(arm.name)
    places = [_length(cell) + shift for cell in cells]
    axes.plot(places, [cell.mean for cell in cells], color=color, linewidth=2, linestyle=line)
    for place, cell in zip(places, cells, strict=True):
        low, high = max(0.0, cell.interval[0]), min(100.0, cell.interval[1])
        error = [[max(0.0, cell.mean - low)], [max(0.0, high - cell.mean)]]
        axes.errorbar(place, cell.mean, error, color=color, elinewidth=1.6, capsize=4, capthick=1.6, zorder=3)
        fill = color if _length(cell) in arm.lengths else "white"
        axes.plot(place, cell.mean, marker, color=color, markerfacecolor=fill, markeredgewidth=1.6, markersize=7)


def style(name: str) -> tuple[str, str, Any]:
    """Return the color, marker and lines of an arm."""
    variant = find_arm(name).variant
    color, marker = STYLES[name if name in STYLES else name.removesuffix(f"_{variant}")]
    return color, marker, "-" if name in STYLES or variant is None else LINES[variant]


def _draw_baseline(axes: Axes, metric: str, cells: Sequence[Cell], records: Records) -> None:
    """Draw the label-only baseline as a dashed line, where labels alone earn anything."""
    if points := _baseline(metric, cells, records):
        axes.plot(*zip(*points, strict=True), color=GRAY, linewidth=1, linestyle=DASHES, zorder=1)


def _baseline(metric: str, cells: Sequence[Cell], records: Records) -> list[tuple[int, float]]:
    """Return the label-only baseline at each length; nothing where it is 0 at all of them."""
    tests = {_length(cell): cell.test_set for cell in cells}
    values = {length: records.label_only_baseline(test, metric) for length, test in sorted(tests.items())}
    points = [(length, value) for length, value in values.items() if value is not None]
    return points if any(value > 0 for _, value in points) else []


def _arm_key(arms: Sequence[str]) -> list[Line2D]:
    """Return the legend entries of the arms."""
    lines = []
    for arm in arms:
        color, marker, line = style(arm)
        label = f"{arm}: {find_arm(arm).caption}"
        lines.append(Line2D([], [], color=color, marker=marker, linestyle=line, markersize=8, linewidth=2, label=label))
    return lines


def _marks_key(cells: Sequence[Cell], has_baseline: bool) -> list[Line2D]:
    """Return the legend entries of markers, intervals and, where one is drawn, the baseline."""
    seeds = {len(cell.records) > 1 for cell in cells}
    kinds = [
        text
        for several, text in ((False, "95% interval over examples"), (True, "± 1 sd over seeds"))
        if several in seeds
    ]
    dot = functools.partial(Line2D, [], [], color=GRAY, marker="o", linestyle="", markersize=7, markeredgewidth=1.6)
    baseline = Line2D([], [], color=GRAY, linewidth=1, linestyle=DASHES, label="label-only baseline (no answers)")
    return [
        dot(label="length was in the tuning data"),
        dot(label="length never seen in tuning", markerfacecolor="white"),
        Line2D([], [], color=GRAY, marker="|", markersize=12, linestyle="", label=", or ".join(kinds)),
        *([baseline] if has_baseline else []),
    ]
