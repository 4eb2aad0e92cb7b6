import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.chain import Chain, Step, render
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.evaluation import metrics, predictions
from coi_jax.evaluation.predictions import PREDICTIONS, Prediction
from coi_jax.evaluation.scores import ScoreKey

ROWS = [Prediction("a", "été\n“x”", True), Prediction("b", "", False)]
CHAIN = Chain("a", "s", "b a", "Sort. and then Count.", (Step("Sort.", "a b"), Step("Count.", "2")))


def write(folder: Path, rows: list[Prediction]) -> None:
    with open(folder / PREDICTIONS, "a", encoding="utf-8") as file:
        for row in rows:
            predictions.append(file, row, CHAIN, {ScoreKey("rouge_l"): 50.0})


def test_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert predictions.prepare(tmp_path / "new", {"checkpoint": "1"}) is False
    write(tmp_path / "new", ROWS)
    assert predictions.prepare(tmp_path / "new", {"checkpoint": "1"}) is False
    assert list(predictions.read(tmp_path / "new")) == ROWS


def test_a_torn_line_is_dropped_and_appending_goes_on(tmp_path: Path) -> None:
    predictions.prepare(tmp_path, {})
    write(tmp_path, ROWS)
    path = tmp_path / PREDICTIONS
    path.write_bytes(path.read_bytes()[:-9])
    predictions.prepare(tmp_path, {})
    assert list(predictions.read(tmp_path)) == ROWS[:1]
    write(tmp_path, ROWS[1:])
    assert list(predictions.read(tmp_path)) == ROWS


def test_those_of_another_checkpoint_are_removed(tmp_path: Path) -> None:
    predictions.prepare(tmp_path, {"checkpoint": "1"})
    write(tmp_path, ROWS)
    assert predictions.prepare(tmp_path, {"checkpoint": "2"}) is True
    assert list(predictions.read(tmp_path)) == []


def test_hash_ignores_order_only() -> None:
    assert predictions.digest(ROWS) == predictions.digest(ROWS[::-1])
    assert predictions.digest(ROWS) != predictions.digest([ROWS[0], Prediction("b", "x", False)])


@pytest.mark.parametrize("line", ['{"id": "a"}\n', "[1]\n", "not JSON\n"])
def test_what_is_no_prediction_is_named(tmp_path: Path, line: str) -> None:
    predictions.prepare(tmp_path, {})
    (tmp_path / PREDICTIONS).write_text(line, encoding="utf-8")
    with pytest.raises(UserError, match=r"predictions\.jsonl:1"):
        list(predictions.read(tmp_path))


@pytest.mark.parametrize(
    "row", [{"id": "a"}, {"id": 1, "prediction": "b", "complete": True}, {"id": "a", "prediction": None}]
)
def test_a_line_that_is_no_prediction_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "predictions.jsonl").write_text(
        '{"id": "a", "prediction": "b\\u0000", "complete": true}\n' + json.dumps(row)
    )
    found = predictions.read(tmp_path)
    assert next(found).text == "b\0"
    with pytest.raises(UserError, match=r"predictions\.jsonl:2: \w+: .*; remove the file and evaluate again"):
        next(found)


def row_of(chain: Chain, text: str) -> dict[str, Any]:
    scores = metrics.of_example(metrics.score_examples([metrics.target_of(chain)], [text]), 0)
    return Prediction(chain.id, text, True).row(chain, scores)


def test_a_line_has_what_a_reader_needs() -> None:
    row = row_of(CHAIN, render(["a b", "3", "4"]))
    assert (row["instruction"], row["input"], row["target"]) == (CHAIN.instruction, "b a", CHAIN.targets)
    assert [(step["instruction"], step["reference"], step["prediction"]) for step in row["steps"]] == [
        ("Sort.", "a b", "a b"),
        ("Count.", "2", "3"),
        (None, None, "4"),
    ]
    assert [step["scores"].get("exact_match") for step in row["steps"]] == [100, 0, None]
    assert row["steps"][1]["scores"]["right_after_right"] == 0
    assert row["scores"]["content_exact_match"] == 0
    assert "published_target" not in row


def test_a_line_tells_steps_that_are_missing_and_the_published_reference() -> None:
    row = row_of(replace(CHAIN, published_targets="Task1 output: a b Task2 output: 2"), "Task 1 output: a b")
    assert [step["prediction"] for step in row["steps"]] == ["a b", None]
    assert row["published_target"] == "Task1 output: a b Task2 output: 2"


def test_lines_of_earlier_versions_are_brought_up_to_date_in_their_place(tmp_path: Path) -> None:
    texts = {"a": "x", "b": CHAIN.targets, "other": "y"}
    old = [{"id": id, "prediction": text, "complete": True, "target": "t"} for id, text in texts.items()]
    predictions.prepare(tmp_path, {})
    (tmp_path / PREDICTIONS).write_text("".join(json.dumps(row) + "\n" for row in old), encoding="utf-8")
    due = [row_of(replace(CHAIN, id=id), texts[id]) for id in ("b", "a")]
    assert predictions.refresh(tmp_path, due) is True
    assert list(predictions.read_rows(tmp_path)) == [due[1], due[0], old[2]]
    before = (tmp_path / PREDICTIONS).stat()
    assert predictions.refresh(tmp_path, due) is False
    assert (tmp_path / PREDICTIONS).stat() == before


def test_lines_that_were_changed_after_they_were_scored_are_noticed(tmp_path: Path) -> None:
    rows = [{"id": "a", "prediction": "x"}, {"id": "b", "prediction": "y"}]
    results = tmp_path / "results.json"
    predictions.check_scored(tmp_path, rows, results)  # not scored yet
    scored = {"examples": 2, "provenance": {"predictions": predictions.digest_of_rows(rows)}}
    files.write_json(results, scored)
    predictions.check_scored(tmp_path, rows[::-1], results)
    changed = [rows[0], {"id": "b", "prediction": "z"}]
    with pytest.raises(UserError, match="was changed after it was scored"):
        predictions.check_scored(tmp_path, changed, results)
    files.write_json(results, scored | {"examples": 1})  # of a sample: the others were never scored
    predictions.check_scored(tmp_path, changed, results)
