"""Sweeps whose run folders are in a bucket."""

from pathlib import Path

import pytest

from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from launch.sweep.__main__ import main
from launch.sweep.point_state import check_writable, claim, is_scored, is_trained, state
from launch.sweep.points import Point, expand
from tests.helpers.paths import CONFIGS


def points(out: str | Path) -> list[Point]:
    return expand(CONFIGS / "sweeps" / "quickstart.py", {}, out)


def test_a_point_in_a_bucket_is_followed_from_new_to_done(bucket: str) -> None:
    point = points(f"{bucket}/sweep")[0]
    assert str(point.folder).startswith(f"{bucket}/sweep/")
    assert state(point) == "new"
    claim(point)
    assert state(point) == "partial"
    checkpoint = point.folder / "checkpoints" / "2"
    files.write_json(checkpoint / "position" / "metadata", {"total_steps": 2})
    assert not is_trained(point)  # until Orbax has marked it as whole
    files.write_text(checkpoint / "commit_success.txt", "whole")
    assert is_trained(point)
    assert not is_scored(point)
    write_scores(point, examples=4)
    assert not is_scored(point)  # a sample, where the config asks for all
    write_scores(point, examples=9)
    assert state(point) == "done"


def write_scores(point: Point, examples: int) -> None:
    provenance = {"checkpoint": "2-abc", "available_examples": 9}
    for test in point.config.evaluation.tests:
        path = point.folder / "eval" / test / "results.json"
        files.write_json(path, {"examples": examples, "provenance": provenance})


def test_the_command_lists_points_in_a_bucket(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = str(CONFIGS / "sweeps" / "quickstart.py")
    arguments = ["--sweep", sweep, "--backend", "local", "--out", f"{bucket}/sweep", "--dry_run"]
    assert cli.run(lambda: main(arguments)) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(points(f"{bucket}/sweep"))
    assert all(" new " in line and f"{bucket}/sweep/" in line for line in lines)


def test_a_bucket_that_cannot_be_written_is_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = points(f"{bucket}/sweep")[0].folder.parent
    check_writable(folder)
    assert not folder.exists()

    def refuse(path: object, text: str) -> None:
        raise PermissionError(13, "403 Forbidden: storage.objects.create denied")

    monkeypatch.setattr(files, "write_text", refuse)
    with pytest.raises(
        UserError, match=rf"^--out: {bucket}/sweep: cannot be written \(.*403 Forbidden.*\); name another"
    ):
        check_writable(folder)


def test_a_folder_of_something_else_is_not_claimed(tmp_path: Path) -> None:
    point = points(tmp_path)[0]
    files.write_text(point.folder / "thesis.txt", "precious")
    with pytest.raises(UserError, match=r"--out: .*: is there already; name a new folder"):
        claim(point)
    assert [path.name for path in point.folder.iterdir()] == ["thesis.txt"]
