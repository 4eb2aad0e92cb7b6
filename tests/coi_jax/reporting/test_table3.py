from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from coi_jax.reporting import paper, table3
from coi_jax.reporting.run_records import load
from coi_jax.reporting.table4 import show_mean
from tests.helpers.scored_runs import write_run

STEPS = {"rouge_l": 60.0, "step1_rouge_l": 80.0, "step2_rouge_l": 40.0}


def test_each_step_stands_beside_the_papers_base_and_tuned_models(tmp_path: Path) -> None:
    write_run(tmp_path / "base", {"arm": "base"}, {"coi2_test": STEPS})
    write_run(tmp_path / "coi12", {"arm": "coi12"}, {"coi2_test": STEPS | {"step2_rouge_l": 50.0}})
    header, *body = table3.make_grid(load([tmp_path]), show_mean)
    assert header[:5] == ["test set", "step", "base", "coi12", "Mistral-7B base, paper"]
    assert [row[:4] for row in body] == [["coi2_test", "1", "80.0", "80.0"], ["coi2_test", "2", "40.0", "50.0"]]
    assert dict(zip(header, body[1], strict=True))["Alpaca-7B CoI, paper"] == "45.6 (+4.4)"
    assert dict(zip(header, body[0], strict=True))["Mistral-7B base, paper"] == "1.3 (+78.7)"


def test_chains_of_another_source_have_no_numbers_of_the_paper(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi12"}, {"proc2_test": STEPS}, source="procedural")
    header, *body = table3.make_grid(load([tmp_path]), show_mean)
    assert header == ["test set", "step", "coi12"]
    assert len(body) == 2


def test_a_step_without_a_score_is_empty_and_no_chains_are_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi12"}, {"coi3_test": STEPS})
    assert [row[2] for row in table3.make_grid(load([tmp_path]), show_mean)[1:]] == ["80.0", "40.0", ""]
    write_run(tmp_path / "b", {"arm": "coi12"}, {"bbh": STEPS})
    with pytest.raises(UserError, match="needs test sets of chains"):
        table3.make_table(load([tmp_path / "b"]))


def test_every_cell_is_traced(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi123"}, {"coi3_test": STEPS})
    table = table3.make_table(load([tmp_path]))
    assert [(cell["step"], cell["mean"]) for cell in table.cells] == [(1, 80.0), (2, 40.0)]
    assert table.cells[1]["paper"] == {"mistral": 68.65, "alpaca": 71.67}
    assert table.rows[0]["from_checkpoint"] == "600"


def test_the_papers_numbers_are_complete() -> None:
    values = paper.results()["table3"]
    assert {test: list(values[test]) for test in values["arms"]} == {
        "coi2_test": ["1", "2"],
        "coi3_test": ["1", "2", "3"],
    }
    for test, arm in values["arms"].items():
        for by_model in values[test].values():
            assert all(list(by_model[model]) == ["base", arm] for model in paper.models())
