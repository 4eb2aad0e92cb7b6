"""Runs stages and keeps each in a folder of JSON lines, named by a hash of everything that it depends on.

A stage is one Beam pipeline. Its folder has a marker once it is complete, with a hash of each file. A later run checks
and skips complete stages and makes interrupted ones anew, for which the language model is not asked again. A change of
settings or prompts makes another folder for every stage that depends on it, and for no other. Calls that the endpoint
declined are asked again by a later run, and where they are answered then, every stage that depends on them is made
anew.
"""

import collections
import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import apache_beam as beam
import fsspec
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import create_runner

from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import JsonError, parse_json
from coi_jax.common.progress import Bar
from coi_jax.llm.client import NOT_STORED
from coi_jax.llm.failures import declines_all
from coi_jax.llm.structured import BUDGET
from data_pipeline.build.engine import stage_marker
from data_pipeline.build.engine.stage_files import UNNAMED, WriteRows
from data_pipeline.build.engine.stage_progress import PROGRESS

OUT, REJECTED, UNANSWERED = "out", "rejected", "unanswered"
TAGS = (OUT, REJECTED, UNANSWERED)
USAGE = "usage"  # tag of the row with the calls, tokens and questions of a stage
DECLINED = "declined"  # marks rejected rows whose calls the endpoint declined; counts them in the marker file
Row = dict[str, Any]
View = TypeVar("View", bound=PipelineOptions)
Flow = Any  # a PCollection of rows


class Incomplete(Exception):
    """Some questions of a stage have no answer yet; `reasons` counts them, `folder` holds them.

    `others` are the folders of further stages whose questions may be asked of the same endpoint at the same time.
    """

    def __init__(self, stage: str, folder: str, reasons: dict[str, int], others: Sequence[str] = ()) -> None:
        super().__init__(stage)
        self.stage, self.folder, self.reasons, self.others = stage, folder, reasons, tuple(others)

    @property
    def out_of_budget(self) -> bool:
        """Return whether the budget is what stopped the stage."""
        return BUDGET in self.reasons


@dataclass(frozen=True)
class Stage:
    """A complete stage.

    Attributes:
      name: of the stage.
      folder: of its files, on any path that fsspec and Beam know.
      identity: a hash of everything that it depends on.
      counts: of its lines, by tag.
    """

    name: str
    folder: str
    identity: str
    counts: dict[str, int]

    def pattern(self, tag: str = OUT) -> str:
        """Return the pattern of its files of a tag."""
        return f"{self.folder}/{tag}-*.jsonl"

    def read(self, tag: str = OUT) -> Iterator[Row]:
        """Yield the rows of a tag, in no order."""
        return read_rows(self.pattern(tag))

    def read_sorted(self, tag: str = OUT) -> Iterator[Row]:
        """Yield the rows of a tag, ordered by the hashes of their lines, in memory that does not grow with the rows."""
        system, path = fsspec.core.url_to_fs(self.pattern(tag))
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(system.open(name, "rb")) for name in sorted(system.glob(path))]
            places = sorted(place for number, file in enumerate(opened) for place in _lines(number, file))
            for _, number, start in places:
                opened[number].seek(start)
                yield _row(opened[number].readline())


def _row(line: str | bytes) -> Row:
    """Return the row that a line of a stage's files spells; raise UserError where the file is damaged."""
    try:
        row: Row = parse_json(line)
    except JsonError as error:
        hint = f"{str(error).partition(';')[0]}; remove the stage's folder, and it is made again"
        raise UserError("work folder", "a line of a stage", hint) from None
    return row


def _lines(number: int, file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield the hash of each line of a file, the file's number, and where the line begins."""
    start = 0
    for line in file:
        yield hashlib.sha256(line).digest()[:16], number, start
        start += len(line)


def read_rows(pattern: str) -> Iterator[Row]:
    """Yield the rows of some files of JSON lines."""
    system, path = fsspec.core.url_to_fs(pattern)
    for name in sorted(system.glob(path)):
        with system.open(name, "rt", encoding="utf-8") as file:
            yield from map(_row, file)


class Options(PipelineOptions):
    """Beam's options with views that are made once: Beam asks for one for every transform, each with a parser."""

    def view_as(self, cls: type[View]) -> View:
        """Return the options that a class of Beam's declares."""
        views: dict[type[View], View] = self.__dict__.setdefault("views", {})  # an attribute would be an option
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


class StageRunner:
    """Runs the stages of a build and keeps their results.

    Args:
      folder: holds a folder for each stage; workers on other machines must see it too.
      options: of Beam, as `--runner`.
    """

    def __init__(self, folder: str, options: Sequence[str]) -> None:
        self.folder, self._options = folder.rstrip("/"), list(options)

    def run(
        self,
        name: str,
        settings: Any,
        inputs: Sequence[Stage],
        make: Callable[[beam.Pipeline], dict[str, Flow]],
        questions: int = 0,
        declined_share: float = 1.0,
    ) -> Stage:
        """Return the stage of that name; make it unless it is complete and the endpoint declined none of its calls.

        Args:
          name: of the stage.
          settings: everything that its rows depend on besides the inputs, as JSON.
          inputs: stages that it reads.
          make: adds its transforms to a pipeline; returns its rows by tag.
          questions: that it asks, for the progress bar.
          declined_share: of its calls that the endpoint may decline.

        Raises:
          Incomplete: some of its questions have no answer; the rest is kept by the store of replies.
          UserError: what its workers found wrong with the user's files or settings; the endpoint declines too much;
            a file of the stage was changed since it was made.
        """
        identity = files.digest([name, settings, [stage.identity for stage in inputs]])
        folder = f"{self.folder}/{name}-{identity[:12]}"
        counts = stage_marker.read(folder)
        if counts is None:
            counts = self._make(name, folder, make, questions, declined_share)
        elif counts.get(DECLINED):
            counts = self._ask_again(name, folder, make, questions, declined_share) or counts
        return Stage(name, folder, _identity(identity, folder, counts), counts)

    def _ask_again(self, name: str, folder: str, *how: Any) -> dict[str, int] | None:
        """Make a stage again, whose declined calls are asked again; keep it where they cannot be asked.

        Args:
          name: of the stage.
          folder: of the complete stage.
          *how: as `_make` has it.
        """
        again = f"{folder}-again"
        try:
            counts = self._make(name, again, *how)
        except Incomplete as stop:
            if NOT_STORED in stop.reasons:  # they are to be asked in a batch
                raise
            reason = max(stop.reasons, key=lambda reason: stop.reasons[reason])
            line = f"note: stage {name} stays without the answers that the endpoint declined before ({reason})"
            print(line, file=sys.stderr, flush=True)
            return None
        system, root = fsspec.core.url_to_fs(folder)
        system.rm(root, recursive=True)
        system.mv(fsspec.core.url_to_fs(again)[1], root, recursive=True)
        return counts

    def _make(
        self,
        name: str,
        folder: str,
        make: Callable[[beam.Pipeline], dict[str, Flow]],
        questions: int,
        declined_share: float,
    ) -> dict[str, int]:
        """Make a stage in an empty folder, and return the counts of its rows; see `run`."""
        system, root = fsspec.core.url_to_fs(folder)
        if system.exists(root):
            system.rm(root, recursive=True)
        system.makedirs(root, exist_ok=True)
        with Bar(name, questions or None) as PROGRESS.bar:
            try:
                self._run(folder, make)
            except RuntimeError as error:  # as Beam wraps what its workers raise
                if mistake := _user_error(error, folder):
                    raise mistake from None
                raise
        PROGRESS.bar = None
        counts = {tag: sum(1 for _ in read_rows(f"{folder}/{tag}-*.jsonl")) for tag in TAGS}
        if counts[UNANSWERED]:
            raise Incomplete(name, folder, _reasons(read_rows(f"{folder}/{UNANSWERED}-*.jsonl")))
        if declined := sum(DECLINED in row for row in read_rows(f"{folder}/{REJECTED}-*.jsonl")):
            _check_declined(folder, declined, declined_share)
            counts[DECLINED] = declined
        stage_marker.write(folder, counts)
        return counts

    def _run(self, folder: str, make: Callable[[beam.Pipeline], dict[str, Flow]]) -> None:
        options = Options(self._options, save_main_session=False)
        with beam.Pipeline(options=options) as pipeline:
            make(pipeline) | "rows" >> WriteRows(folder)
        system, unnamed = fsspec.core.url_to_fs(f"{folder}/{UNNAMED}")
        if system.exists(unnamed):
            system.rm(unnamed, recursive=True)


def _user_error(error: BaseException | None, folder: str) -> UserError | OSError | None:
    """Return the user's mistake, or what the user's disk is to blame for, among the causes of an error.

    Args:
      error: that Beam raised.
      folder: of the stage, which an error of the disk names that names no file.
    """
    while error is not None and not isinstance(error, UserError | OSError):
        error = error.__cause__ or error.__context__
    if isinstance(error, OSError) and error.filename is None:
        error.filename = folder
    return error


def check_beam_flags(flags: Sequence[str], own: Sequence[str]) -> None:
    """Check that Beam knows all flags: a misspelt flag of the command must not start a build.

    Args:
      flags: that the command does not know.
      own: the command's flags, for the nearest name.

    Raises:
      UserError: one is not known; the nearest is given.
    """
    known = ["--help", *own, *(f"--{name}" for name in PipelineOptions([]).get_all_options())]
    for flag in flags:
        name = flag.partition("=")[0]
        if name.startswith("-") and name.replace("--no_", "--") not in known:
            raise UserError("flag", name, cli.unknown_option(name, known))
        if name == "--runner":
            _check_runner(flag.partition("=")[2])


def _check_runner(name: str) -> None:
    try:
        create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError("--runner", name, f"Beam cannot make it: {reason}") from None


def check_work_folder(folder: str) -> None:
    """Raise UserError where Beam cannot write into a folder, as in a bucket whose client is not installed.

    A folder whose name is a pattern is refused too: Beam would read the rows of all folders that it fits.
    """
    if signs := [sign for sign in "*?[]" if sign in folder]:
        raise UserError("--work", folder, f"holds {signs[0]}, which Beam reads as a pattern; name another folder")
    try:
        FileSystems.get_filesystem(folder)
    except ValueError:
        client = "; for gs://, pip install 'apache-beam[gcp]'" if folder.startswith("gs://") else ""
        raise UserError("--work", folder, f"Beam cannot write there; name a local folder{client}") from None


def _reasons(rows: Iterable[Row]) -> dict[str, int]:
    """Return how often each reason is given."""
    return dict(collections.Counter(row["reason"] for row in rows))


def _check_declined(folder: str, declined: int, share: float) -> None:
    """Raise UserError, with the endpoint's reason, where it declined more than a share of a stage's calls."""
    asked = declined + sum(row["calls"] for row in read_rows(f"{folder}/{USAGE}-*.jsonl"))
    if declined > share * asked:
        reasons = _reasons(row for row in read_rows(f"{folder}/{REJECTED}-*.jsonl") if DECLINED in row)
        raise declines_all(max(reasons, key=lambda reason: reasons[reason]), declined, asked)


def _identity(identity: str, folder: str, counts: dict[str, int]) -> str:
    """Return what the stages after this one depend on: also on which of its calls were declined."""
    if not counts.get(DECLINED):
        return identity
    rows = (row["row"] for row in read_rows(f"{folder}/{REJECTED}-*.jsonl") if DECLINED in row)
    return files.digest([identity, sorted(map(files.digest, rows))])


def rows_of(stage: Stage, tag: str = OUT) -> beam.PTransform[Any, Any]:
    """Return the rows of a stage, in a pipeline."""
    rows = _Read(stage.pattern(tag)) if stage.counts[tag] else beam.Create([])  # no file is there without a row
    read: beam.PTransform[Any, Any] = f"read {stage.name} {tag}" >> rows
    return read


class _Read(beam.PTransform[Any, Any]):
    def __init__(self, pattern: str) -> None:
        super().__init__()
        self._pattern = pattern

    def expand(self, start: Any) -> Flow:
        """Read the files as rows."""
        lines = start | beam.io.ReadFromText(self._pattern)
        return lines | beam.Map(_row)
