"""The paper's figure 6 from run records: scores by chain length, a line for each arm."""

import functools
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.data.arms import ARMS
from coi_jax.data.test_sets import TEST_SETS, chain_length
from coi_jax.reporting.run_records import Cell, Records


@dataclass(frozen=True)
class Panel:
    """One score of the figure, and how to name it to a reader."""

    metric: str
    title: str


PANELS = (
    Panel("content_rouge_l", "Closeness of the steps' answers\n(ROUGE-L of their content, 0–100)"),
    Panel("content_exact_match", "Whole chains exactly right\n(every step, % of chains)"),
)

# Okabe and Ito's colors, which color-blind readers tell apart, with a marker for each; then lighter ones for more arms.
_PALETTE = (
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
STYLES = dict(zip(ARMS, itertools.cycle(_PALETTE), strict=False))
TITLE = "How well models carry out chains of instructions, by the number of steps in the chain"
GREY = "#777777"
SPREAD = 0.4  # of all arms over one length, so that their intervals do not hide one another
ARM_SPREAD = 0.08  # of two arms, at most


def figure6_cells(records: Records) -> list[Cell]:
    """The points of the figure: every arm at every chain length that it was scored on.

    Raises:
      UserError: no run was scored on chains of a known length.
    """
    tests = [test for test in records.test_sets if chain_length(test)]
    if not tests:
        raise UserError("--figure 6", ", ".join(records.test_sets), "needs test sets of chains, such as coi2_test")
    tests.sort(key=lambda test: (TEST_SETS[test].group, chain_length(test)))
    cells = [records.cell(arm, test, panel.metric) for panel in PANELS for arm in records.arms for test in tests]
    return [cell for cell in cells if cell]


def write_figure6(records: Records, folder: files.PathLike) -> list[str]:
    """Writes `figure6.png` and `figure6.svg` and returns their names. The same records give the same bytes."""
    figure = draw_figure6(records)
    names = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "coi"}):
            figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
        names.append(f"figure6.{kind}")
        files.write_bytes(f"{folder}/{names[-1]}", buffer.getvalue())
    return names


def draw_figure6(records: Records) -> Figure:
    """A row of panels for each family of test sets: closeness on the left, exact match on the right."""
    cells = figure6_cells(records)
    groups = sorted({_group(cell) for cell in cells})
    figure = Figure(figsize=(10, 1.4 + 3.9 * len(groups)), layout="constrained")
    grid = figure.subplots(len(groups), len(PANELS), squeeze=False)
    for row, group in zip(grid, groups, strict=True):
        for axes, panel in zip(row, PANELS, strict=True):
            chosen = [cell for cell in cells if (_group(cell), cell.metric) == (group, panel.metric)]
            _draw_panel(axes, panel, chosen, records)
    key = functools.partial(figure.legend, frameon=False, fontsize=9.5, title_fontsize=13.5)
    key(handles=_arm_key(records.arms), loc="outside upper center", ncols=3, title=TITLE)
    key(handles=_marks_key(cells), loc="outside lower center", ncols=4)
    return figure


def _group(cell: Cell) -> str:
    return TEST_SETS[cell.test_set].group


def _draw_panel(axes: Axes, panel: Panel, cells: Sequence[Cell], records: Records) -> None:
    lengths = sorted({_length(cell) for cell in cells})
    arms = [arm for arm in ARMS if any(cell.arm == arm for cell in cells)]
    spread = min(ARM_SPREAD, SPREAD / len(arms))
    for place, arm in enumerate(arms):
        _draw_arm(axes, [cell for cell in cells if cell.arm == arm], spread * (place - (len(arms) - 1) / 2))
    _draw_floor(axes, panel.metric, cells, records)
    axes.set(xlabel="steps in the chain", xticks=lengths, xlim=(lengths[0] - 0.3, lengths[-1] + 0.3), ylim=(-3, 103))
    axes.set_title(panel.title, loc="left", fontsize=11)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _length(cell: Cell) -> int:
    return chain_length(cell.test_set) or 0


def _draw_arm(axes: Axes, cells: Sequence[Cell], shift: float) -> None:
    """A line with its intervals; markers of lengths that the arm was tuned on are filled, those of others hollow."""
    colour, marker = STYLES[cells[0].arm]
    places = [_length(cell) + shift for cell in cells]
    axes.plot(places, [cell.mean for cell in cells], color=colour, linewidth=2)
    for place, cell in zip(places, cells, strict=True):
        axes.vlines(place, *cell.interval, color=colour, linewidth=1.4)
        fill = colour if _length(cell) in ARMS[cell.arm].lengths else "white"
        axes.plot(place, cell.mean, marker, color=colour, markerfacecolor=fill, markeredgewidth=1.6, markersize=7)


def _draw_floor(axes: Axes, metric: str, cells: Sequence[Cell], records: Records) -> None:
    tests = {_length(cell): cell.test_set for cell in cells}
    floor = {length: records.floor(test, metric) for length, test in sorted(tests.items())}
    known = [(length, value) for length, value in floor.items() if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def _arm_key(arms: Sequence[str]) -> list[Line2D]:
    """What each line stands for, in words."""
    return [
        Line2D(
            [],
            [],
            color=STYLES[arm][0],
            marker=STYLES[arm][1],
            markersize=8,
            linewidth=2,
            label=f"{arm}: {ARMS[arm].caption}",
        )
        for arm in arms
    ]


def _marks_key(cells: Sequence[Cell]) -> list[Line2D]:
    seeds = {len(cell.records) > 1 for cell in cells}
    kinds = [
        text
        for several, text in ((False, "95% interval over examples"), (True, "± 1 sd over seeds"))
        if several in seeds
    ]
    dot = functools.partial(Line2D, [], [], color=GREY, marker="o", linestyle="", markersize=7, markeredgewidth=1.6)
    return [
        dot(label="length was in the tuning data"),
        dot(label="length never seen in tuning", markerfacecolor="white"),
        Line2D([], [], color=GREY, marker="|", markersize=12, linestyle="", label=", or ".join(kinds)),
        Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="floor: labels without answers"),
    ]
