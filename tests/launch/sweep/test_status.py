"""The status of points, from run folders as the trainer and the evaluator write them."""

from pathlib import Path
from typing import Any

import pytest

from coi_jax.common import cli, files
from coi_jax.common.folder_lock import folder_lock
from launch.sweep.__main__ import main
from launch.sweep.point_state import SWEEP_LOCK, claim
from launch.sweep.points import Point, expand
from launch.sweep.status import HEADER, status_row
from tests.helpers.paths import CONFIGS

SWEEP = CONFIGS / "sweeps" / "quickstart.py"
METRICS = (
    '{"step": 10, "loss": 2.5, "tokens_per_second": 4000.0, "seconds_per_step": 2.0}\n'
    '{"step": 20, "loss": 1.5, "tokens_per_second": 5000.0, "seconds_per_step": 3.0}\n'
    '{"step": 20, "validation_loss": 1.75}\n'
)


@pytest.fixture
def point(tmp_path: Path) -> Point:
    return expand(SWEEP, {"train.length.unit": "steps", "train.length.count": 100}, tmp_path / "runs")[0]


def status(point: Point) -> dict[str, str]:
    return dict(zip(HEADER, status_row(point), strict=True))


def write_scores(point: Point, **more: Any) -> None:
    for test in point.config.evaluation.tests:
        provenance = {"checkpoint": "100-abc", "available_examples": 9}
        values = {"examples": 9, "provenance": provenance, "scores": {"content_rouge_l": {"value": 62.13}}}
        files.write_json(point.folder / "eval" / test / "results.json", values | more)


def test_a_point_is_followed_from_new_to_done(point: Point) -> None:
    assert status(point) == dict.fromkeys(HEADER, "") | {"id": point.id, "state": "new"}
    claim(point)
    files.write_text(point.folder / "metrics.jsonl", METRICS)
    found = status(point)
    assert (found["state"], found["step"], found["ETA"]) == ("stopped", "20/100 (20%)", "0:04:00")
    assert (found["tokens/s"], found["loss"], found["validation"]) == ("5,000", "1.500", "1.750")
    with folder_lock(point.folder, "--out", SWEEP_LOCK):
        assert status(point)["state"] == "running"
    files.write_json(point.folder / "checkpoints" / "100" / "position" / "metadata", {"total_steps": 100})
    write_scores(point)
    found = status(point)
    assert found["state"] == "done"
    assert found["scores"].startswith("proc1_test 62.1 proc2_test 62.1")


def test_the_steps_of_epochs_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    point = expand(SWEEP, {"train.length.unit": "epochs", "train.length.count": 2.0}, tmp_path / "runs")[0]
    claim(point)
    files.write_text(point.folder / "metrics.jsonl", METRICS)
    assert (status(point)["step"], status(point)["ETA"]) == ("20", "")
    files.write_json(point.folder / "checkpoints" / "10" / "position" / "metadata", {"total_steps": 40})
    assert (status(point)["step"], status(point)["ETA"]) == ("20/40 (50%)", "0:01:00")


@pytest.mark.parametrize("text", ["", "{", '{"loss": 1}\n', METRICS + '{"step": 3'])
def test_files_that_are_being_written_leave_cells_empty(point: Point, text: str) -> None:
    claim(point)
    files.write_text(point.folder / "metrics.jsonl", text)
    files.write_text(point.folder / "eval" / "proc1_test" / "results.json", text)
    found = status(point)
    assert found["state"] == "stopped"
    assert found["scores"] == ""


def test_the_command_prints_a_line_for_each_point_and_ends_when_all_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ["--sweep", str(SWEEP), "--backend", "local", "--out", str(tmp_path / "runs")]
    fixed += ["--config.train.length.unit=steps", "--config.train.length.count=100"]
    assert cli.run(lambda: main([*fixed, "--status"])) == 0
    header, *rows, counts = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["id", "state", "step"]
    assert [row.split()[1] for row in rows] == ["new"] * 3
    assert counts == "3 points: 3 new"
    for point in expand(SWEEP, {"train.length.unit": "steps", "train.length.count": 100}, tmp_path / "runs"):
        claim(point)
        files.write_json(point.folder / "checkpoints" / "100" / "position" / "metadata", {"total_steps": 100})
        write_scores(point)
    assert cli.run(lambda: main([*fixed, "--watch", "60"])) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 points: 3 done"


@pytest.mark.parametrize("flags", [["--status"], ["--watch", "1"]])
def test_a_dry_run_follows_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    fixed = ["--sweep", str(SWEEP), "--backend", "local", "--out", str(tmp_path / "runs"), "--dry_run"]
    assert cli.run(lambda: main([*fixed, *flags])) == 2
    assert f"error: {flags[0]}: " in (message := capsys.readouterr().err)
    assert "and --dry_run what it would run; leave one of them out" in message


@pytest.mark.parametrize("text", ["[]", "3", "null", "{", "{}", '{"arm": "coi3"}'])
def test_a_point_whose_config_is_damaged_is_not_done(point: Point, text: str) -> None:
    claim(point)
    files.write_json(point.folder / "checkpoints" / "100" / "position" / "metadata", {"total_steps": 100})
    write_scores(point)
    assert status(point)["state"] == "done"
    files.write_text(point.folder / "config.json", text)
    assert status(point)["state"] == "damaged"
