"""Writes the rows of a stage as files of JSON lines, in one transform for all of its tags.

Beam's own transforms take one kind of rows each, in a dozen steps that cost more than the work of most stages, or pass
over files that could not be renamed. Here each bundle writes files of its own, and those of the attempt that succeeded
get the names that the stage is read by.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

UNNAMED = "unnamed"  # the folder, in the stage's, of the files of bundles


class WriteRows(beam.PTransform[Any, Any]):
    """Writes rows into files `<tag>-<number>-of-<count>.jsonl`; a tag without rows has none.

    Args:
      folder: of the stage.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def expand(self, flows: Mapping[str, Any]) -> Any:
        """Write the rows of each tag."""
        lines = [flow | f"{tag}: to JSON" >> beam.Map(_line, tag) for tag, flow in flows.items()]
        return (
            lines
            | "all tags" >> beam.Flatten()
            | "write" >> beam.ParDo(_WriteBundle(f"{self._folder}/{UNNAMED}"))
            | "by tag" >> beam.GroupByKey()
            | "name" >> beam.FlatMap(_name_files, self._folder)
        )


def _line(row: Any, tag: str) -> tuple[str, str]:
    return tag, json.dumps(row, ensure_ascii=False)


class _WriteBundle(beam.DoFn):
    """Writes the lines of a bundle, and emits the paths of its files by their tags."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._opened: dict[str, tuple[str, IO[bytes]]] = {}

    def start_bundle(self) -> None:
        """Begin without a file."""
        self._opened = {}

    def process(self, line: tuple[str, str]) -> None:
        """Write a line into the file of its tag."""
        tag, text = line
        if tag not in self._opened:
            path = f"{self._folder}/{tag}-{uuid.uuid4()}"
            self._opened[tag] = path, FileSystems.create(path)
        self._opened[tag][1].write(f"{text}\n".encode())

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Close the files and emit their paths."""
        for tag, (path, file) in self._opened.items():
            file.close()
            yield WindowedValue((tag, path), GlobalWindow().max_timestamp(), (GlobalWindow(),))


def _name_files(paths_of_tag: tuple[str, Iterable[str]], folder: str) -> Iterator[str]:
    """Give the files of a tag their names, in an order that is the same when Beam does it again; yield the names.

    Args:
      paths_of_tag: a tag, and the files of its bundles.
      folder: of the stage.
    """
    tag, paths = paths_of_tag[0], sorted(paths_of_tag[1])
    for number, path in enumerate(paths):
        name = f"{folder}/{tag}-{number:05d}-of-{len(paths):05d}.jsonl"
        try:
            FileSystems.rename([path], [name])
        except BeamIOError:
            if FileSystems.exists(path) or not FileSystems.exists(name):  # else an earlier attempt named it
                raise
        yield name
