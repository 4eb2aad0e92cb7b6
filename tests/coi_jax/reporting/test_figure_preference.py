from pathlib import Path
from typing import Any

import pytest

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.reporting import figure_preference
from coi_jax.reporting.run_records import Records, read
from tests.helpers.scored_runs import write_run

SCORES = {"coi2_test": {"rouge_l": 50.0}}


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 5, "high": value + 5}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for arm in ("coi1", "coi12"):
        write_run(tmp_path / arm, {"arm": arm}, SCORES)
    return tmp_path


def compare(runs: Path, judge: str = "m", **changes: Any) -> Path:
    path = runs / "coi12" / "judge" / f"coi2_test_vs_coi1_by_{judge}.json"
    shares = {"win_rate": share(75.0), "wins": share(60.0), "ties": share(30.0), "losses": share(10.0)}
    head = {"a": str(runs / "coi12"), "b": str(runs / "coi1"), "test_set": "coi2_test", "judge": judge, "pairs": 100}
    files.write_json(path, head | shares | changes)
    return path


def records(runs: Path) -> Records:
    return read([runs])


def test_a_bar_has_all_pairs_and_the_papers_win_rates_stand_below(runs: Path, tmp_path: Path) -> None:
    compare(runs)
    compare(runs, "people")
    found = figure_preference.read_comparisons(records(runs))
    assert [(each.arm_a, each.arm_b, each.judge) for each in found] == [
        ("coi12", "coi1", "m"),
        ("coi12", "coi1", "people"),
    ]
    assert [figure_preference.papers_values(each) for each in found] == [{"alpaca": 69.9, "mistral": 70.92}, {}]
    (axes,) = figure_preference.draw(found).axes
    assert [patch.get_width() for patch in axes.patches] == [60.0, 30.0, 10.0] * 2  # type: ignore[attr-defined]
    names = figure_preference.write(records(runs), tmp_path / "out")
    assert (tmp_path / "out" / "figure_preference.png").read_bytes().startswith(b"\x89PNG")
    assert names[0] == "figure_preference.json"


def test_without_comparisons_it_is_one_line(runs: Path) -> None:
    with pytest.raises(UserError, match=r"run python -m coi_jax\.judge first"):
        figure_preference.read_comparisons(records(runs))


def test_a_damaged_comparison_is_named(runs: Path) -> None:
    path = compare(runs, wins=3)
    with pytest.raises(UserError, match=r"not as python -m coi_jax\.judge writes it") as caught:
        figure_preference.read_comparisons(records(runs))
    assert str(path) in str(caught.value)
