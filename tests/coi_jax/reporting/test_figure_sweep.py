from pathlib import Path
from typing import Any

import pytest

from coi_jax import tables
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.reporting import figure_sweep
from coi_jax.reporting.run_records import load, read
from tests.helpers.scored_runs import write_run


def add(folder: Path, name: str, score: float, **overrides: Any) -> None:
    fields = {"arm": "coi12"} | {key.replace("__", "."): value for key, value in overrides.items()}
    write_run(folder / name, fields, {"proc2_test": {"content_rouge_l": score}}, source="procedural")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three learning rates, one of them with two seeds."""
    folder = tmp_path / "runs"
    add(folder, "a", 20.0, optimizer__learning_rate=1e-2)
    add(folder, "b", 60.0, optimizer__learning_rate=1e-3)
    add(folder, "c", 70.0, optimizer__learning_rate=1e-3, seed=1)
    add(folder, "d", 40.0, optimizer__learning_rate=1e-4)
    return folder


def test_a_line_has_the_scores_of_each_value_in_order(runs: Path) -> None:
    (line,) = figure_sweep.make_lines(read([runs]))
    assert (line.arm, line.test_set, line.field) == ("coi12", "proc2_test", "optimizer.learning_rate")
    assert line.points == {1e-4: [40.0], 1e-3: [60.0, 70.0], 1e-2: [20.0]}
    (axes,) = figure_sweep.draw([line]).axes
    assert axes.get_xscale() == "log"
    drawn = axes.containers[0].lines[0]  # type: ignore[attr-defined]
    assert list(drawn.get_ydata()) == [40.0, 65.0, 20.0]


def test_names_have_places_and_fields_have_panels(runs: Path) -> None:
    add(runs, "e", 50.0, optimizer__schedule="cosine", optimizer__learning_rate=1e-4, seed=2)
    figure = figure_sweep.draw(figure_sweep.make_lines(read([runs])))
    assert [axes.get_xlabel() for axes in figure.axes] == ["optimizer.learning_rate", "optimizer.schedule"]
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["cosine", "linear"]


def test_the_shares_of_a_mixture_are_one_setting(tmp_path: Path) -> None:
    for number, parts in enumerate(((1, 1, 2), (1, 2, 1), (1, 2, 1))):
        ratios = dict(enumerate(parts, start=1))
        add(tmp_path, str(number), 10.0 * number, arm="coi123", seed=number, data__ratios=ratios)
    (line,) = figure_sweep.make_lines(read([tmp_path]))
    assert (line.field, line.points) == ("data.ratios", {"1: 1, 2: 1, 3: 2": [0.0], "1: 1, 2: 2, 3: 1": [10.0, 20.0]})


def test_the_command_draws_a_sweep_whose_runs_are_no_table(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both are coi12 with seed 0"):
        load([runs])
    out = tmp_path / "out"
    assert tables.main(["--runs", str(runs), "--figure", "sweep", "--table", "4", "--out", str(out)]) == 2
    assert not (out / "table4.md").exists()
    cells = files.read_json(out / "figure_sweep.json")["cells"]
    assert [(cell["value"], cell["scores"]) for cell in cells][1] == (1e-3, [60.0, 70.0])
    assert (out / "figure_sweep.png").read_bytes().startswith(b"\x89PNG")


def test_runs_that_differ_in_nothing_are_one_line(tmp_path: Path) -> None:
    add(tmp_path, "a", 20.0)
    add(tmp_path, "b", 20.0, seed=1)
    with pytest.raises(UserError, match="needs runs of one arm that differ in a field"):
        figure_sweep.make_lines(read([tmp_path]))
