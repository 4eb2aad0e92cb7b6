"""A run's numbers, written twice: metrics.jsonl for programs, TensorBoard events for people; and to trackers."""

import json
import math
import pathlib
import re
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from coi_jax.common import files, imports, storage
from coi_jax.common.errors import UserError, naming
from coi_jax.common.seals import seal_row
from coi_jax.common.storage import AppendFile, PathLike, as_path, is_local
from coi_jax.runs.metrics_rows import read_metrics
from coi_jax.runs.trackers import Tracker

# Where torch is installed, tensorboardX would load it for kinds of arrays that it is not given here.
with imports.not_importable("torch"):
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

EVENTS = "events.out.tfevents."  # begins the names of files that TensorBoard reads


class MetricsLog:
    """Appends the numbers of a step to both files; a write that fails raises OSError at once.

    In a bucket, where nothing can be appended, both are uploaded again once in `storage.UPLOAD_SECONDS` and on close.
    """

    def __init__(self, jsonl: PathLike, tensorboard: PathLike, *, start: int, trackers: Sequence[Tracker] = ()) -> None:
        """Open the log of a run that continues after `start` steps: what was logged later than that is dropped.

        Args:
          jsonl: the file for programs.
          tensorboard: the folder for people.
          start: steps that the run has taken.
          trackers: get every row too, the kept ones again, and are closed with the log.
        """
        rows = _drop_after(as_path(jsonl), start)
        self.rows = len(rows)  # in the file
        self._trackers = trackers
        for row in rows:
            self._track(row["step"], {name: number for name, number in row.items() if name != "step"})
        self._jsonl = AppendFile(jsonl, "workdir")
        self._mirror = None if is_local(tensorboard) else _Mirror(as_path(tensorboard))
        self._events = _Events(
            self._mirror.folder if self._mirror else pathlib.Path(tensorboard), _next_name(as_path(tensorboard)), start
        )

    def close(self, *, failed: bool = False) -> None:
        """Close both files and the trackers, which are told whether the run failed."""
        self._jsonl.close()
        self._events.close()
        if self._mirror:
            self._mirror.close()
        for tracker in self._trackers:
            tracker.close(failed=failed)

    def flush(self) -> None:
        """Bring all that was written into the bucket now; local files have each row as soon as it is written."""
        self._jsonl.upload()
        if self._mirror:
            self._mirror.upload()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of a step; `step` counts from 1."""
        finite = {
            name: number if math.isfinite(number) else None for name, number in numbers.items()
        }  # JSON has no NaN
        files.append_jsonl(self._jsonl, seal_row({"step": step, **finite}))
        self.rows += 1
        self._events.write(step, numbers)
        if self._mirror and self._mirror.is_due:
            self._mirror.upload()
        self._track(step, finite)

    def _track(self, step: int, numbers: Mapping[str, float | None]) -> None:
        known = {name: number for name, number in numbers.items() if number is not None}
        for tracker in self._trackers:
            tracker.write(step, known)


class _Events:
    """A file of TensorBoard events. tensorboardX's `SummaryWriter` would leave rows to a thread, which a kill loses."""

    def __init__(self, folder: pathlib.Path, name: str, start: int) -> None:
        """Begin a file of its own; older ones count up to `start` from here on."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / name
        self._writer = RecordWriter(str(self._path))
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._add(Event(wall_time=time.time(), step=start + 1, session_log=SessionLog(status=SessionLog.START)))

    def _add(self, event: Event) -> None:
        with naming(self._path):
            self._writer.write(event.SerializeToString())

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of a step, and flush them."""
        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        with naming(self._path):
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def _next_name(folder: epath.Path) -> str:
    """Return the name of a new file of events, by the second at which it begins.

    TensorBoard reads files in the order of their names, so it comes after those that are there, also where they began
    within the same second, or the clock was set back since.
    """
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    begun = [int(found[1]) for name in names if (found := re.match(rf"{re.escape(EVENTS)}(\d+)\.", name))]
    return f"{EVENTS}{max([int(time.time()), *(second + 1 for second in begun)]):010d}.{socket.gethostname()}"


class _Mirror:
    """A local folder whose files are copied into a bucket: tensorboardX writes local files."""

    def __init__(self, target: epath.Path) -> None:
        self._local, self._target = tempfile.TemporaryDirectory(), target
        self.folder, self._uploaded = pathlib.Path(self._local.name), time.monotonic()

    @property
    def is_due(self) -> bool:
        """Return whether it is time for another upload."""
        return time.monotonic() - self._uploaded > storage.UPLOAD_SECONDS

    def upload(self) -> None:
        """Copy all files."""
        storage.upload_folder(self.folder, self._target)
        self._uploaded = time.monotonic()

    def close(self) -> None:
        """Copy all files, and remove the local ones."""
        self.upload()
        self._local.cleanup()


def _drop_after(path: epath.Path, step: int) -> list[dict[str, Any]]:
    """Keep the rows up to a step, and return them: a run that was killed continues from its checkpoint and logs the
    rest again.
    """
    files.recover_jsonl(path, "metrics")
    if not path.exists():
        return []
    try:
        kept = [row for row in read_metrics(path) if row["step"] <= step]
    except UserError as error:
        raise UserError(
            error.field, error.value, f"{error.hint}, or remove the line: a run goes on without it"
        ) from None
    files.write_text(path, "".join(json.dumps(seal_row(row)) + "\n" for row in kept), "workdir")
    return kept
