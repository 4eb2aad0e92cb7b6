import csv
import json
from pathlib import Path
from typing import Any

import pytest

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.data.arms import ARMS, Arm
from coi_jax.evaluation.scores import SCORES
from coi_jax.reporting import paper, table4
from coi_jax.reporting.run_records import load
from tests.helpers.scored_runs import procedural, write_results, write_run

VALUES = {"rouge_l": 70.0, "content_rouge_l": 60.0, "content_exact_match": 20.0, "well_formed": 98.0}


def grid_of(folder: Path, metric: str = "rouge_l") -> dict[str, dict[str, str]]:
    """The table as `{arm: {column: text}}`; the paper's columns have their test set before them."""
    header, *body = table4.grid(load([folder]), metric, table4.show_interval)
    names, test = [], ""
    for name in header:
        test = name if "paper" not in name else test
        names.append(name if name == test else f"{test} {name}")
    return {row[0]: dict(zip(names, row, strict=True)) for row in body}


def write_table(folder: Path, out: Path) -> Any:
    assert table4.write(load([folder]), out) == [f"table4.{kind}" for kind in ("md", "tex", "csv", "json")]
    return files.read_json(out / "table4.json")


def test_an_arm_on_a_variant_is_a_row_of_its_own(tmp_path: Path) -> None:
    for arm in ("coi12_irrelevant", "coi12", "coi2_irrelevant"):
        write_run(tmp_path / arm, {"arm": arm}, {"proc1_test": VALUES}, source="procedural")
    assert list(grid_of(tmp_path)) == ["coi12", "coi2_irrelevant", "coi12_irrelevant", "label-only baseline"]
    assert (tmp_path / "coi12_irrelevant").is_dir()


def test_our_score_stands_beside_the_papers(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi12"}, {"coi2_test": VALUES, "proc1_test": VALUES})
    grid = grid_of(tmp_path)
    assert list(grid) == [*ARMS, "label-only baseline"]
    assert grid["coi12"]["coi2_test"] == "70.0 [68.0, 72.0]"
    assert grid["coi12"]["coi2_test Mistral-7B, paper"] == "70.8 (−0.8)"
    assert grid["coi123"]["coi2_test Alpaca-7B, paper"] == "67.1"
    assert grid["base"]["coi2_test"] == ""
    assert grid["label-only baseline"]["coi2_test"] == "36.0"
    assert [name for name in grid["coi12"] if name.startswith("proc1_test")] == ["proc1_test"]
    assert "paper" not in " ".join(grid_of(tmp_path, "content_rouge_l")["coi12"])


def test_procedural_tests_have_the_arms_that_ran_and_a_note(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi12"}, procedural(90, 20, 2), source="procedural")
    assert list(grid_of(tmp_path)) == ["coi12", "label-only baseline"]
    assert "The paper has no numbers for proc1_test (data: procedural), " in table4.markdown(load([tmp_path]))


def test_several_seeds_are_a_mean_a_deviation_and_a_count(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        scores = {"proc2_test": VALUES | {"rouge_l": 70.0 + seed}}
        write_run(tmp_path / str(seed), {"arm": "coi12", "seed": seed}, scores)
    assert grid_of(tmp_path)["coi12"]["proc2_test"] == "71.0 ± 1.0 (n=3)"
    cell = load([tmp_path]).cell("coi12", "proc2_test", "rouge_l")
    assert cell is not None
    assert [source["seed"] for source in cell.to_dict()["sources"]] == [0, 1, 2]


def test_every_cell_names_what_it_came_from(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "a", {"arm": "coi12"}, {"coi2_test": VALUES})
    table = write_table(tmp_path / "runs", tmp_path / "report")
    assert len(table["cells"]) == len(table4.METRICS)
    for cell in table["cells"]:
        (source,) = cell["sources"]
        assert {key: source[key] for key in ("run", "checkpoint", "dataset", "test_set", "predictions")} == {
            "run": str(run),
            "checkpoint": "600",
            "dataset": "d0",
            "test_set": "coi2_test-t0",
            "predictions": "p-a",
        }
        assert Path(source["results"]).exists()
        assert cell["paper"] == ({"mistral": 70.76, "alpaca": 67.5} if cell["metric"] == "rouge_l" else {})
        expected = {"mistral": 70 - 70.76, "alpaca": 2.5} if cell["metric"] == "rouge_l" else {}
        assert cell["difference"] == pytest.approx(expected)
    with open(tmp_path / "report" / "table4.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["metric"], float(row["mean"])) for row in rows] == list(VALUES.items())
    assert all(row["from_run"] == str(run) for row in rows)


def test_missing_runs_are_listed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi1"}, {"proc1_test": VALUES, "proc2_test": VALUES})
    write_run(
        tmp_path / "b", {"arm": "coi12", "evaluation.tests": ("proc1_test", "proc2_test")}, {"proc1_test": VALUES}
    )
    records = load([tmp_path])
    assert grid_of(tmp_path)["coi12"]["proc2_test"] == ""
    assert table4.missing(records) == {"coi12": ["proc2_test"]}
    page = table4.markdown(records)
    assert "No result yet: coi12 on proc2_test." in page
    assert str(tmp_path / "b" / "eval" / "proc2_test" / "results.json") in page


def test_the_page_is_whole_markdown_and_says_how_to_read_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi1", "train.length.count": 900}, {"coi2_test": VALUES})
    write_run(tmp_path / "b", {"arm": "coi12", "optimizer.learning_rate": 1e-4}, {"coi2_test": VALUES})
    page = table4.markdown(load([tmp_path]))
    for title in table4.METRICS.values():
        assert title in page
    assert paper.results()["source"] in page
    assert "configs differ besides in the arm: optimizer.learning_rate, train.length.count" in page
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)


def test_the_papers_numbers_are_complete() -> None:
    assert set(paper.results()["table4"]) == {"coi2_test", "coi3_test", "bbh"}
    assert paper.arms() == ["base", "cot", "ltm", "coi1", "coi2", "coi3", "coi12", "coi123"]
    assert set(paper.arms()) <= set(ARMS)
    for test, models in paper.results()["table4"].items():
        assert set(models) == set(paper.models())
        assert all(list(by_arm) == paper.arms() for by_arm in models.values())
        assert all(0 < (paper.rouge_l(test, model, arm) or 0) < 100 for model in models for arm in paper.arms())
    assert json.dumps(paper.results()["source"]).startswith('"Hayati')


def test_sections_are_the_scores_that_the_registry_puts_into_the_table() -> None:
    assert list(table4.METRICS) == list(VALUES)
    assert table4.METRICS["well_formed"] == SCORES["well_formed"].title


def test_an_arm_that_the_paper_does_not_have_has_empty_cells_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARMS, "coi4", Arm("coi4", (4,), "tuned on chains of 4 steps"))
    write_run(tmp_path / "a", {"arm": "coi4"}, {"coi2_test": VALUES})
    grid = grid_of(tmp_path)
    assert list(grid) == [*paper.arms(), "coi4", "label-only baseline"]
    assert grid["coi4"]["coi2_test"] == "70.0 [68.0, 72.0]"
    assert grid["coi4"]["coi2_test Mistral-7B, paper"] == ""
    cell = load([tmp_path]).cell("coi4", "coi2_test", "rouge_l")
    assert cell is not None
    assert table4.papers_values(cell) == {}


def test_chains_of_another_source_do_not_stand_beside_the_papers_numbers(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi12"}, {"coi2_test": VALUES, "bbh": VALUES}, source="coi_jax.build")
    grid = grid_of(tmp_path)
    assert [name for name in grid["coi12"] if name.startswith("coi2_test")] == ["coi2_test"]
    assert grid["coi12"]["bbh Mistral-7B, paper"] == "24.4 (+45.6)"
    papers = {cell["test_set"]: cell["paper"] for cell in table4.make_cells(load([tmp_path]))}
    assert papers["coi2_test"] == {}
    page = table4.markdown(load([tmp_path]))
    assert "The paper has no numbers for coi2_test (data: coi_jax.build)." in page


def test_the_table_says_how_many_examples_were_scored(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi12"}, {"coi2_test": VALUES})
    assert "Examples: coi2_test 100." in table4.markdown(load([tmp_path]))
    path = tmp_path / "a" / "eval" / "coi2_test" / "results.json"
    results = files.read_json(path)
    results["provenance"]["available_examples"] = 1588
    write_results(path, results)
    assert "Examples: coi2_test 100 of 1,588." in table4.markdown(load([tmp_path]))


def test_results_of_an_older_format_are_one_clear_line(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", {"arm": "coi1"}, {"coi2_test": VALUES}) / "eval" / "coi2_test" / "results.json"
    values = files.read_json(path)
    values["floor"] = values.pop("label_only_baseline")
    files.write_json(path, values)
    with pytest.raises(UserError, match=r"label_only_baseline: Field required; .*run it again"):
        load([tmp_path])
