from pathlib import Path

import pytest

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.reporting import table_bbh
from coi_jax.reporting.run_records import load
from coi_jax.reporting.table4 import show_mean
from tests.helpers.scored_runs import write_results, write_run


def score(value: float) -> dict[str, dict[str, float]]:
    return {"rouge_l": {"value": value, "low": value - 1, "high": value + 1}}


def add_tasks(run: Path, **values: float) -> None:
    path = run / "eval" / "bbh" / "results.json"
    tasks = {name: {"examples": 10, "scores": score(value)} for name, value in values.items()}
    mean = score(sum(values.values()) / len(values))
    write_results(path, files.read_json(path) | {"by_task": {"tasks": tasks, "mean": mean}})


def test_every_task_has_a_row_and_the_papers_mean_stands_below(tmp_path: Path) -> None:
    for arm, value in (("base", 10.0), ("coi12", 30.0)):
        run = write_run(tmp_path / arm, {"arm": arm}, {"bbh": {"rouge_l": value}})
        add_tasks(run, navigate=value, snarks=value + 10)
    records = load([tmp_path])
    assert table_bbh.make_grid(records, "rouge_l", show_mean) == [
        ["task", "base", "coi12"],
        ["navigate", "10.0", "30.0"],
        ["snarks", "20.0", "40.0"],
        ["mean over tasks", "15.0", "35.0"],
        ["mean over examples", "10.0", "30.0"],
        ["Mistral-7B, paper", "8.5 (+1.5)", "24.4 (+5.6)"],
        ["Alpaca-7B, paper", "14.4 (−4.4)", "28.8 (+1.2)"],
    ]
    table = table_bbh.make_table(records)
    assert [(cell["task"], cell["arm"]) for cell in table.cells][:2] == [("navigate", "base"), ("navigate", "coi12")]


def test_a_run_without_tasks_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, {"coi2_test": {"rouge_l": 1.0}})
    with pytest.raises(UserError, match=r"no run has scores of BIG-Bench Hard; .* --tasks=bbh"):
        table_bbh.make_table(load([tmp_path]))
