import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.options.pipeline_options import PipelineOptions

from data_pipeline.build.build_job import RUNNER
from data_pipeline.build.engine.stage_files import WriteRows, _name_files, _WriteBundle
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, UNANSWERED, Row, read_rows

ROWS = [{"text": f"Über {number}\nlines"} for number in range(30)]


def read(folder: Path, tag: str = OUT) -> list[Row]:
    return sorted(read_rows(f"{folder}/{tag}-*.jsonl"), key=str)


def write_bundle(folder: Path, texts: list[str]) -> list[str]:
    """The paths of the files of a bundle."""
    writer = _WriteBundle(f"{folder}/unnamed")
    writer.start_bundle()
    for text in texts:
        writer.process((OUT, json.dumps({"text": text})))
    return [value.value[1] for value in writer.finish_bundle()]


def test_every_row_is_in_a_file_of_its_tag(tmp_path: Path) -> None:
    flows: dict[str, list[Any]] = {OUT: ROWS, REJECTED: [{"reason": "too long"}], UNANSWERED: []}
    with beam.Pipeline(options=PipelineOptions([RUNNER])) as pipeline:
        {tag: pipeline | tag >> beam.Create(rows) for tag, rows in flows.items()} | WriteRows(str(tmp_path))
    assert {tag: read(tmp_path, tag) for tag in flows} == {tag: sorted(rows, key=str) for tag, rows in flows.items()}
    names = {path.name for path in tmp_path.glob("*.jsonl")}
    assert names == {"out-00000-of-00001.jsonl", "rejected-00000-of-00001.jsonl"}


def test_the_rows_of_an_attempt_that_failed_are_in_no_file(tmp_path: Path) -> None:
    write_bundle(tmp_path, ["a", "b"])  # whose paths do not arrive
    paths = [*write_bundle(tmp_path, ["a", "b"]), *write_bundle(tmp_path, ["c"])]
    assert len(list(_name_files((OUT, paths), str(tmp_path)))) == 2
    assert [row["text"] for row in read(tmp_path)] == ["a", "b", "c"]


def test_files_keep_their_names_where_a_worker_names_them_again(tmp_path: Path) -> None:
    paths = [*write_bundle(tmp_path, ["a"]), *write_bundle(tmp_path, ["b"])]
    naming = _name_files((OUT, paths), str(tmp_path))
    assert next(naming).endswith("out-00000-of-00002.jsonl")  # and the worker is lost
    first, second = _name_files((OUT, reversed(paths)), str(tmp_path))
    assert (Path(first).name, Path(second).name) == ("out-00000-of-00002.jsonl", "out-00001-of-00002.jsonl")
    assert [row["text"] for row in read(tmp_path)] == ["a", "b"]


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    (path,) = write_bundle(tmp_path, ["a"])
    Path(path).unlink()
    with pytest.raises(BeamIOError):
        list(_name_files((OUT, [path]), str(tmp_path)))
