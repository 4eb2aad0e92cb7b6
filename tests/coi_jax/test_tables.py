import csv
import json
from pathlib import Path
from typing import Any

import pytest

from coi_jax import tables
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.data.arms import ARMS
from coi_jax.reporting import paper
from coi_jax.reporting.run_records import load
from tests.helpers.scored_runs import procedural, write_run

SCORES = {"rouge_l": 70.0, "content_rouge_l": 60.0, "content_exact_match": 20.0, "well_formed": 98.0}


def grid_of(folder: Path, metric: str = "rouge_l") -> dict[str, dict[str, str]]:
    """The table as `{arm: {column: text}}`; the paper's columns have their test set before them."""
    header, *body = tables.grid(load([folder]), metric, tables.show_interval)
    names, test = [], ""
    for name in header:
        test = name if "paper" not in name else test
        names.append(name if name == test else f"{test} {name}")
    return {row[0]: dict(zip(names, row, strict=True)) for row in body}


def write_table(folder: Path, out: Path) -> Any:
    assert tables.main(["--runs", str(folder), "--table", "4", "--out", str(out)]) == 0
    return files.read_json(out / "table4.json")


def test_our_score_stands_beside_the_papers(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi12"}, {"coi2_test": SCORES, "proc1_test": SCORES})
    grid = grid_of(tmp_path)
    assert list(grid) == [*ARMS, "floor"]
    assert grid["coi12"]["coi2_test"] == "70.0 [68.0, 72.0]"
    assert grid["coi12"]["coi2_test Mistral-7B, paper"] == "70.8"
    assert grid["coi123"]["coi2_test Alpaca-7B, paper"] == "67.1"
    assert grid["base"]["coi2_test"] == ""
    assert grid["floor"]["coi2_test"] == "36.0"
    assert [name for name in grid["coi12"] if name.startswith("proc1_test")] == ["proc1_test"]
    assert "paper" not in " ".join(grid_of(tmp_path, "content_rouge_l")["coi12"])


def test_procedural_tests_have_the_arms_that_ran_and_a_note(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi12"}, procedural(90, 20, 2))
    assert list(grid_of(tmp_path)) == ["coi12", "floor"]
    assert "The paper has no numbers for proc1_test, " in tables.markdown(load([tmp_path]))


def test_several_seeds_are_a_mean_a_deviation_and_a_count(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        scores = {"proc2_test": SCORES | {"rouge_l": 70.0 + seed}}
        write_run(tmp_path / str(seed), {"arm": "coi12", "seed": seed}, scores)
    assert grid_of(tmp_path)["coi12"]["proc2_test"] == "71.0 ± 1.0 (n=3)"
    cell = load([tmp_path]).cell("coi12", "proc2_test", "rouge_l")
    assert cell is not None
    assert [source["seed"] for source in cell.to_dict()["sources"]] == [0, 1, 2]


def test_every_cell_names_what_it_came_from(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "a", {"arm": "coi12"}, {"coi2_test": SCORES})
    table = write_table(tmp_path / "runs", tmp_path / "report")
    assert len(table["cells"]) == len(tables.METRICS)
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
    with open(tmp_path / "report" / "table4.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["metric"], float(row["mean"])) for row in rows] == list(SCORES.items())
    assert all(row["from_run"] == str(run) for row in rows)


def test_files_are_the_same_twice(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", {"arm": "coi12"}, procedural(90, 20, 2))
    for out in ("x", "y"):
        tables.main(["--runs", str(tmp_path / "runs"), "--table", "4", "--figure", "6", "--out", str(tmp_path / out)])
    names = sorted(path.name for path in (tmp_path / "x").iterdir())
    assert names == ["figure6.json", "figure6.png", "figure6.svg", "table4.csv", "table4.json", "table4.md"]
    for name in names:
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_missing_runs_are_listed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi1"}, {"proc1_test": SCORES, "proc2_test": SCORES})
    write_run(
        tmp_path / "b", {"arm": "coi12", "evaluation.tests": ("proc1_test", "proc2_test")}, {"proc1_test": SCORES}
    )
    records = load([tmp_path])
    assert grid_of(tmp_path)["coi12"]["proc2_test"] == ""
    assert tables.missing(records) == {"coi12": ["proc2_test"]}
    page = tables.markdown(records)
    assert "No result yet: coi12 on proc2_test." in page
    assert str(tmp_path / "b" / "eval" / "proc2_test" / "results.json") in page


def test_the_page_is_whole_markdown_and_says_how_to_read_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi1", "train.steps": 900}, {"coi2_test": SCORES})
    write_run(tmp_path / "b", {"arm": "coi12", "optimizer.learning_rate": 1e-4}, {"coi2_test": SCORES})
    page = tables.markdown(load([tmp_path]))
    for title in tables.METRICS.values():
        assert title in page
    assert paper.results()["source"] in page
    assert "configs differ besides in the arm: optimizer.learning_rate, train.steps" in page
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)


@pytest.mark.parametrize("arguments", [["--out", "x"], ["--table", "5", "--out", "x"], ["--figure", "6"]])
def test_wrong_arguments_exit_with_2(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tables.main(["--runs", str(tmp_path), *arguments])
    assert caught.value.code == cli.EXIT_USER_ERROR
    assert capsys.readouterr().err.count("\n") == 1


def test_the_papers_numbers_are_complete() -> None:
    assert set(paper.results()["table4"]) == {"coi2_test", "coi3_test", "bbh"}
    for test, models in paper.results()["table4"].items():
        assert set(models) == set(paper.models())
        assert all(set(by_arm) == set(ARMS) for by_arm in models.values())
        assert all(0 < paper.rouge_l(test, model, arm) < 100 for model in models for arm in ARMS)
    assert json.dumps(paper.results()["source"]).startswith('"Hayati')


def test_no_runs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results yet"):
        tables.main(["--runs", str(tmp_path), "--table", "4", "--out", str(tmp_path)])
