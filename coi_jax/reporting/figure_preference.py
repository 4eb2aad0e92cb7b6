"""Preferences of judges between pairs of runs: the shares of wins, ties and losses, beside the paper's win rates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coi_jax.common import files
from coi_jax.common.errors import UserError, not_as_written
from coi_jax.common.storage import PathLike
from coi_jax.common.wording import count_of
from coi_jax.config.run import read_run_config
from coi_jax.reporting import paper
from coi_jax.reporting.figure_files import write_images
from coi_jax.reporting.run_records import CONFIG, Records

# The title, the color and the color of the text of each part of a bar.
PARTS = {
    "wins": ("A is better", "#0072B2", "white"),
    "ties": ("tie", "#C9C9C9", "black"),
    "losses": ("B is better", "#D55E00", "white"),
}
BASELINE = "coi1"  # that the paper's judge compares with
MARKERS = {"mistral": "d", "alpaca": "o"}
ROW = 0.62  # inches of a bar


@dataclass(frozen=True)
class Comparison:
    """One comparison of two runs, as `python -m coi_jax.judge` wrote it.

    Attributes:
      path: of its file.
      arm_a: the arm of run A.
      arm_b: the arm of run B; "" where its folder is not there.
      test_set: whose answers were compared.
      judge: the model that was asked, or "people".
      pairs: how many were compared.
      shares: win rate, wins, ties and losses of A, each with its interval, x 100.
    """

    path: str
    arm_a: str
    arm_b: str
    test_set: str
    judge: str
    pairs: int
    shares: dict[str, dict[str, float]]


def write(records: Records, folder: PathLike) -> list[str]:
    """Write the figure as PNG, SVG and PDF, with its numbers as JSON, and return the files' names.

    Raises:
      UserError: no run was compared with another, or a comparison is damaged.
    """
    comparisons = read_comparisons(records)
    cells = [{**vars(each), "paper": papers_values(each)} for each in comparisons]
    files.write_json(f"{folder}/figure_preference.json", {"paper": paper.results()["source"], "cells": cells})
    return ["figure_preference.json", *write_images(draw(comparisons), "figure_preference", folder)]


def read_comparisons(records: Records) -> list[Comparison]:
    """Return the comparisons of all runs, by test set, arm and judge.

    Raises:
      UserError: there is none, or one is not as it was written.
    """
    runs = dict.fromkeys(row.run for row in records.rows)
    paths = [path for run in runs if (run / "judge").is_dir() for path in sorted((run / "judge").glob("*.json"))]
    if not paths:
        hint = "needs comparisons of two runs; run python -m coi_jax.judge first"
        raise UserError("--figure preference", count_of(len(runs), "run"), hint)
    found = [_read(path) for path in paths]
    return sorted(found, key=lambda each: (each.test_set, each.arm_a, each.arm_b, each.judge))


def _read(path: Any) -> Comparison:
    value = files.read_object(path, "comparison")
    try:
        shares = {name: dict(value[name]) for name in ("win_rate", *PARTS)}
        arm_a, arm_b = _arm(value["a"]), _arm(value["b"])
        return Comparison(str(path), arm_a, arm_b, value["test_set"], value["judge"], value["pairs"], shares)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("comparison", path, not_as_written("coi_jax.judge", error)) from None


def _arm(run: str) -> str:
    try:
        return read_run_config(f"{run}/{CONFIG}", "run's config").arm
    except UserError:
        return ""


def papers_values(comparison: Comparison) -> dict[str, float]:
    """Return the paper's win rate for each of its models; empty where it has none for these arms and chains."""
    if comparison.arm_b != BASELINE or comparison.judge == "people":
        return {}
    by_model: dict[str, dict[str, float]] = paper.results()["judge_win_rate"].get(comparison.test_set, {})
    return {model: by_arm[comparison.arm_a] for model, by_arm in by_model.items() if comparison.arm_a in by_arm}


def draw(comparisons: Sequence[Comparison]) -> Figure:
    """Return the figure: a bar for each comparison, with the interval of the win rate."""
    figure = Figure(figsize=(9, 1.5 + ROW * len(comparisons)), layout="constrained")
    axes = figure.subplots()
    for place, comparison in enumerate(comparisons):
        _draw_bar(axes, place, comparison)
    names = [
        f"{each.arm_a or 'A'} against {each.arm_b or 'B'}, {each.test_set}\n"
        f"{each.judge}, {count_of(each.pairs, 'pair')}"
        for each in comparisons
    ]
    axes.set_yticks(range(len(comparisons)), names)
    axes.set(xlim=(0, 100), xlabel="% of pairs; line: win rate of A (ties count half) with its 95% interval")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    labels = {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=5, frameon=False)
    return figure


def _draw_bar(axes: Axes, place: int, comparison: Comparison) -> None:
    left = 0.0
    for name, (title, color, ink) in PARTS.items():
        width = comparison.shares[name]["value"]
        axes.barh(place, width, left=left, color=color, height=0.6, label=title)
        if width >= 6:
            axes.text(left + width / 2, place, f"{width:.0f}", ha="center", va="center", color=ink, fontsize=9)
        left += width
    rate = comparison.shares["win_rate"]
    axes.plot([rate["low"], rate["high"]], [place + 0.38] * 2, color="black", linewidth=1.5)
    axes.plot(rate["value"], place + 0.38, "|", color="black", markersize=9)
    for model, value in papers_values(comparison).items():
        name = f"{paper.models()[model]}, paper"
        axes.plot(value, place + 0.38, MARKERS[model], color="black", markerfacecolor="white", label=name)
