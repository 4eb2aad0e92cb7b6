import json
from pathlib import Path
from typing import Any

import pytest

from coi_jax.common.errors import UserError
from coi_jax.evaluation import predictions
from coi_jax.evaluation.predictions import PREDICTIONS, Prediction

ROWS = [Prediction("a", "été\n“x”", True), Prediction("b", "", False)]


def write(folder: Path, rows: list[Prediction]) -> None:
    with open(folder / PREDICTIONS, "a", encoding="utf-8") as file:
        for row in rows:
            predictions.append(file, row, "reference")


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
    with pytest.raises(UserError, match=r"predictions\.jsonl:2: has no "):
        next(found)
