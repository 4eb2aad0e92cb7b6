import itertools
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgb
from matplotlib.lines import Line2D

from coi_jax.common.errors import UserError
from coi_jax.data.arms import ARMS, VARIANTS
from coi_jax.reporting import figure6
from coi_jax.reporting.figure_files import FORMATS, write_images
from coi_jax.reporting.run_records import load
from tests.helpers import scored_runs
from tests.helpers.scored_runs import procedural, write_run


def three_arms(folder: Path) -> Path:
    for seen, arm in enumerate(("coi1", "coi12", "coi123"), 1):
        write_run(folder / arm, {"arm": arm}, procedural(95, 20, seen), source="procedural")
    return folder


def points(line: Line2D) -> np.ndarray:
    """The points of a line, [points, 2]."""
    return np.asarray(line.get_xydata(), np.float64)


def curve(axes: Axes, arm: str) -> list[float]:
    """The heights of an arm's line."""
    color = figure6.STYLES[arm][0]
    (line,) = [line for line in axes.lines if same_color(line.get_color(), color) and len(points(line)) > 1]
    heights: list[float] = points(line)[:, 1].tolist()
    return heights


def filled(axes: Axes, arm: str) -> list[int]:
    """The lengths at which an arm's marker is filled."""
    color = figure6.STYLES[arm][0]
    marks = [line for line in axes.lines if line.get_marker() == figure6.STYLES[arm][1]]
    return [round(points(mark)[0, 0]) for mark in marks if same_color(mark.get_markerfacecolor(), color)]


def test_lines_show_the_scores_and_fill_the_lengths_tuned_on(tmp_path: Path) -> None:
    figure = figure6.draw(load([three_arms(tmp_path)]))
    assert len(figure.axes) == len(figure6.PANELS)
    for axes, metric in zip(figure.axes, figure6.PANELS, strict=True):
        for seen, arm in enumerate(("coi1", "coi12", "coi123"), 1):
            expected = [scores[metric] for scores in procedural(95, 20, seen).values()]
            assert curve(axes, arm) == pytest.approx(expected)
            assert filled(axes, arm) == list(ARMS[arm].lengths)
        assert [int(tick) for tick in axes.get_xticks()] == [1, 2, 3, 4, 5, 6]


def test_an_arm_on_a_variant_has_a_line_of_its_own_in_the_color_of_the_arm(tmp_path: Path) -> None:
    arms = {"coi12": 20.0, "coi12_irrelevant": 30.0, "coi12_final": 40.0}
    for arm, drop in arms.items():
        write_run(tmp_path / arm, {"arm": arm}, procedural(95, drop, 2), source="procedural")
    axes = figure6.draw(load([tmp_path])).axes[0]
    color = figure6.STYLES["coi12"][0]
    lines = [line for line in axes.lines if same_color(line.get_color(), color) and len(points(line)) > 1]
    assert len(lines) == 3
    assert filled(axes, "coi12") == [1, 2] * 3
    styles = [figure6.style(arm) for arm in arms]
    assert {style[:2] for style in styles} == {figure6.STYLES["coi12"]}
    assert len({str(line) for *_, line in styles}) == 3


def test_every_arm_has_a_color_and_a_marker_of_its_own() -> None:
    assert set(figure6.STYLES) == set(ARMS)
    assert len({to_rgb(color) for color, _ in figure6.STYLES.values()}) == len(ARMS)
    assert len({marker for _, marker in figure6.STYLES.values()}) == len(ARMS)
    assert len(set(figure6.PALETTE)) == len({to_rgb(color) for color, _ in figure6.PALETTE}) == 16


def test_every_variant_has_a_line_of_its_own() -> None:
    assert len({*figure6.LINES.values()}) == len(VARIANTS)


def test_panels_are_the_scores_that_the_registry_puts_into_the_figure() -> None:
    assert figure6.PANELS == {
        "content_rouge_l": "Closeness of the steps' answers\n(ROUGE-L of their content, 0–100)",
        "content_exact_match": "Whole chains exactly right\n(every step, % of chains)",
    }


def test_the_key_names_arms_and_intervals(tmp_path: Path) -> None:
    figure = figure6.draw(load([three_arms(tmp_path)]))
    words = " ".join(text.get_text() for legend in figure.legends for text in legend.get_texts())
    assert "coi12: tuned on chains of 1 or 2 steps" in words
    assert "95% interval" in words
    assert "seeds" not in words
    assert "label-only" not in words  # it is 0 in both panels
    assert figure.legends[-1].get_title().get_text() == "100 chains for each length; seed 0; data: procedural"
    write_run(tmp_path / "more", {"arm": "coi1", "seed": 1}, procedural(90, 20, 1), source="procedural")
    figure = figure6.draw(load([tmp_path]))
    assert "seeds" in " ".join(text.get_text() for text in figure.legends[-1].get_texts())
    assert "mean over seeds 0, 1" in figure.legends[-1].get_title().get_text()


def test_a_baseline_above_zero_is_drawn_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scored_runs.BASELINE, "content_rouge_l", 12.0)
    figure = figure6.draw(load([three_arms(tmp_path)]))
    dashed = [[line for line in axes.lines if same_color(line.get_color(), figure6.GRAY)] for axes in figure.axes]
    assert [len(lines) for lines in dashed] == [1, 0]
    assert "label-only" in " ".join(text.get_text() for text in figure.legends[-1].get_texts())


def test_intervals_can_be_seen_beside_their_markers(tmp_path: Path) -> None:
    figure = figure6.draw(load([three_arms(tmp_path)]))
    caps = [line for line in figure.axes[0].lines if line.get_marker() == "_"]
    assert len(caps) == 2 * 3 * 6
    places = sorted({round(float(points(line)[0, 0]), 3) for line in caps})
    assert min(b - a for a, b in itertools.pairwise(places)) >= 0.1


def test_released_and_procedural_chains_have_rows_of_their_own(tmp_path: Path) -> None:
    scores = procedural(90, 10, 3)
    released = {f"coi{length}_test": scores[f"proc{length}_test"] for length in (2, 3, 4, 5)}
    write_run(tmp_path / "a", {"arm": "base"}, scores | released | {"bbh": scores["proc1_test"]})
    figure = figure6.draw(load([tmp_path]))
    assert [len(curve(axes, "base")) for axes in figure.axes] == [4, 4, 6, 6]
    assert filled(figure.axes[0], "base") == []
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes] == ["coi*_test", "", "proc*_test", ""]


def test_files_open(tmp_path: Path) -> None:
    names = write_images(figure6.draw(load([three_arms(tmp_path / "runs")])), "figure6", tmp_path)
    assert names == [f"figure6.{kind}" for kind in FORMATS]
    assert (tmp_path / "figure6.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "figure6.svg").getroot().tag.endswith("svg")


def test_test_sets_without_a_length_are_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, {"bbh": {"content_rouge_l": 3.0}})
    with pytest.raises(UserError, match="coi2_test"):
        figure6.draw(load([tmp_path]))
