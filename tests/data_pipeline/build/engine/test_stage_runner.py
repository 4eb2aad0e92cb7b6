import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions

from coi_jax.common.errors import UserError
from data_pipeline.build.build_job import RUNNER
from data_pipeline.build.engine import stage_marker
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, UNANSWERED, USAGE, Options, Stage, StageRunner


def test_options_are_those_of_beam_and_views_of_them_are_made_once() -> None:
    flags = [RUNNER, "--streaming"]
    options, beams = Options(flags, save_main_session=False), PipelineOptions(flags, save_main_session=False)
    for view in (StandardOptions, SetupOptions):
        assert options.view_as(view) is options.view_as(view)
        assert options.view_as(view).get_all_options() == beams.view_as(view).get_all_options()
    options.view_as(StandardOptions).streaming = False  # as a runner changes what all see
    assert not options.get_all_options()["streaming"]
    assert pickle.loads(pickle.dumps(options)).get_all_options() == options.get_all_options()


ROWS = [{"id": str(number), "verdicts": [number]} for number in range(3)]
USED = {"calls": 3, "questions": 3}


def run(folder: Path, made: list[str] | None = None) -> Stage:
    """A stage with a few rows; `made` gets its name where it is made and not taken as it is."""

    def make(start: beam.Pipeline) -> dict[str, Any]:
        if made is not None:
            made.append("seeds")
        return {OUT: start | beam.Create(ROWS), USAGE: start | "usage" >> beam.Create([USED])}

    return StageRunner(str(folder), [RUNNER]).run("seeds", None, [], make)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete stage."""
    return Path(run(tmp_path_factory.mktemp("stages")).folder)


def file_of(folder: Path, tag: str) -> Path:
    return next(folder.glob(f"{tag}-*.jsonl"))


def change(tag: str, old: str, new: str) -> Callable[[Path], Path]:
    """Replace some text in a file, as a person or a flipped bit does."""

    def damage(folder: Path) -> Path:
        path = file_of(folder, tag)
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        return path

    return damage


def double(folder: Path) -> Path:
    path = file_of(folder, OUT)
    path.write_bytes(path.read_bytes() * 2)
    return path


def drop(folder: Path) -> Path:
    path = file_of(folder, USAGE)
    path.unlink()
    return path


def add(folder: Path) -> Path:
    return Path(shutil.copyfile(file_of(folder, OUT), folder / "out-00001-of-00002.jsonl"))


def mark(text: str) -> Callable[[Path], Path]:
    def damage(folder: Path) -> Path:
        path = folder / stage_marker.NAME
        path.write_text(text, encoding="utf-8")
        return path

    return damage


def lower_count(folder: Path) -> Path:
    value = json.loads((folder / stage_marker.NAME).read_text(encoding="utf-8"))
    return mark(json.dumps(value | {"counts": value["counts"] | {OUT: -1}}))(folder)


DAMAGES = {
    "a value of another type": change(OUT, "[1]", "false"),
    "another value": change(OUT, "[1]", "[2]"),
    "rows given twice": double,
    "damaged usage": change(USAGE, "3", "4"),
    "a lost file": drop,
    "a file of another stage": add,
    "a negative count": lower_count,
    **{f"the marker {text}": mark(text) for text in ("", "{", "{}", "[]", "1", '{"out": "x"}', '{"out": -1}')},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_was_changed_in_a_stage_is_named_and_not_used(
    stage: Path, tmp_path: Path, damage: Callable[[Path], Path]
) -> None:
    made: list[str] = []
    folder = Path(shutil.copytree(stage, tmp_path / stage.name))
    assert list(run(tmp_path, made).read()) == ROWS
    path = damage(folder)
    with pytest.raises(UserError, match=f"{path.name}: .*; remove the folder .*, and the stage is made again") as error:
        run(tmp_path, made)
    assert str(path) in str(error.value)
    assert not made
    shutil.rmtree(folder)
    assert list(run(tmp_path, made).read()) == ROWS
    assert made


def test_a_stage_of_an_earlier_version_is_made_again(
    stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    folder = Path(shutil.copytree(stage, tmp_path / stage.name))
    mark(json.dumps({OUT: 3, REJECTED: 0, UNANSWERED: 0}))(folder)
    assert run(tmp_path, made).counts[OUT] == 3
    assert made
    assert f"note: {folder} is of an earlier version, without checksums" in capsys.readouterr().err
    assert run(tmp_path, made).counts[OUT] == 3
    assert len(made) == 1
