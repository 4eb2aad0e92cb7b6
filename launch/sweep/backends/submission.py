"""What backends share that hand points to a cluster, where each runs by the local backend of its machine."""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Self

from coi_jax.common import files
from coi_jax.common.errors import UserError, shorten
from coi_jax.common.storage import is_local
from launch.sweep.backends.protocol import Settings
from launch.sweep.points import Point

CALL_SECONDS = 300  # that a program of a cluster may take: xpk and sky ask the cloud several times
LONGEST_REASON = 300  # characters of what a program wrote that an error quotes


class Submission:
    """A context manager that has nothing to interrupt: what is submitted runs elsewhere.

    Attributes:
      name: of the backend.
      program: that submits.
      install: how to get the program.
    """

    stopped = False
    name: str
    program: str
    install: str

    def __enter__(self) -> Self:
        """Return the backend; raise UserError where its program is not on the path."""
        if shutil.which(self.program) is None:
            hint = f"needs {self.program}, which is not installed here; {self.install}"
            raise UserError("--backend", self.name, hint)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave everything as it is."""


def read_cluster_lines(file: str) -> Iterator[str]:
    """Yield the lines of a file of `--cluster` without their ends.

    Raises:
      UserError: it cannot be read, or a line holds a NUL byte, which no command line and no script can.
    """
    for number, line in enumerate(files.read_lines(file, "--cluster"), 1):
        if "\0" in line:
            raise UserError("--cluster", f"{file}:{number}", "holds a NUL byte; correct the line")
        yield line.rstrip("\r\n")


def check_bucket(points: Sequence[Point]) -> None:
    """Raise UserError where the run folders are on this machine, which those of a cluster do not see."""
    folder = points[0].folder.parent
    if is_local(folder):
        raise UserError("--out", folder, "is on this machine; name a folder in a bucket, such as gs://BUCKET/sweep")


def call(command: Sequence[str], backend: str) -> str:
    """Return the output of a program; raise UserError with its own words where it fails, hangs or cannot be run.

    Args:
      command: the program and its arguments.
      backend: that calls it.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="backslashreplace", check=False, timeout=CALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        hint = f"{command[0]} has not answered within {CALL_SECONDS} s; see whether the cluster does, and go on then"
        raise UserError("--backend", backend, hint) from None
    except OSError as error:
        path = shutil.which(command[0]) or command[0]
        hint = f"{path} cannot be run ({error.strerror}); is the program there that its first line names?"
        raise UserError("--backend", backend, hint) from None
    if done.returncode:
        said = [line.strip() for line in f"{done.stdout}\n{done.stderr}".split("\n") if line.strip()]
        reason = shorten(said[-1], LONGEST_REASON) if said else _status(done.returncode)
        raise UserError("--backend", backend, f"{command[0]} failed: {reason}")
    return done.stdout


def _status(code: int) -> str:
    """Return how a program ended that wrote nothing."""
    return f"status {code}" if code > 0 else f"it was ended by {signal.Signals(-code).name}"


def job_id(point: Point) -> str:
    """Return the name of a point's job, which follows from its run folder and is short enough for any cluster."""
    return f"coi-{files.digest(str(point.folder))[:12]}"


def point_command(settings: Settings, python: str) -> list[str]:
    """Return the command that runs a point on its machine, before the `--only` that names the point.

    Args:
      settings: of the sweep.
      python: the interpreter there.
    """
    retries = ["--retries", str(settings.retries)] if settings.retries else []
    return [python, "-m", "launch.sweep", "--backend", "local", *settings.arguments, *retries]
