from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from coi_jax.reporting import paper, table6
from coi_jax.reporting.run_records import load
from coi_jax.reporting.table4 import show_mean
from tests.helpers.scored_runs import write_run

SCORES = {
    "rouge_l": 12.0,
    "step1_rouge_l": 16.0,
    "step2_rouge_l": 10.0,
    "step1_in_language": 98.0,
    "step2_in_language": 97.0,
}


def test_scores_and_valid_outputs_stand_beside_the_papers(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi12"}, {"wikilingua_en_fr": SCORES, "coi2_test": SCORES})
    records = load([tmp_path])
    assert table6.tests(records) == ["wikilingua_en_fr"]
    header, *body = table6.make_grid(records, "wikilingua_en_fr", show_mean)
    grid = {row[0]: dict(zip(header, row, strict=True)) for row in body}
    assert [row["coi12"] for row in grid.values()] == ["12.0", "16.0", "10.0", "98.0", "97.0"]
    assert grid["ROUGE-L of the summary"]["Mistral-7B coi12, paper"] == "15.7 (+0.3)"
    assert grid["summaries in the source language, %"]["Alpaca-7B coi12, paper"] == "76.0 (+22.0)"  # 228 of 300
    assert grid["ROUGE-L of the whole text"]["Mistral-7B base, paper"] == "8.0"
    table = table6.make_table(records)
    assert [cell["row"] for cell in table.cells] == [name for name, _, _ in table6.ROWS]


def test_other_test_sets_are_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, {"coi2_test": SCORES})
    with pytest.raises(UserError, match="needs a run that was scored on wikilingua_en_fr, wikilingua_es_en"):
        table6.make_table(load([tmp_path]))


def test_the_papers_numbers_are_complete() -> None:
    values = paper.results()["table6"]
    for test in ("wikilingua_en_fr", "wikilingua_es_en"):
        for by_arm in values[test].values():
            assert all(list(by_arm[arm]) == [name for name, _, _ in table6.ROWS] for arm in ("base", "coi12"))
