"""What backends share that hand points to a cluster, where each runs by the local backend of its machine."""

import shutil
import subprocess
from collections.abc import Sequence
from typing import Self

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import is_local
from launch.sweep.backends.protocol import Settings
from launch.sweep.points import Point


class Submission:
    """A context manager that has nothing to interrupt: what is submitted runs elsewhere."""

    stopped = False

    def __enter__(self) -> Self:
        """Return the backend."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave everything as it is."""


def check_installed(program: str, backend: str, hint: str) -> None:
    """Raise UserError where a program is not on the path.

    Args:
      program: such as `sbatch`.
      backend: that needs it.
      hint: how to get it.
    """
    if shutil.which(program) is None:
        raise UserError("--backend", backend, f"needs {program}, which is not installed here; {hint}")


def check_bucket(points: Sequence[Point]) -> None:
    """Raise UserError where the run folders are on this machine, which those of a cluster do not see."""
    folder = points[0].folder.parent
    if is_local(folder):
        raise UserError("--out", folder, "is on this machine; name a folder in a bucket, such as gs://BUCKET/sweep")


def call(command: Sequence[str], backend: str) -> str:
    """Return the output of a program; raise UserError with its own words where it fails.

    Args:
      command: the program and its arguments.
      backend: that calls it.
    """
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="backslashreplace", check=False)
    if done.returncode:
        said = [line.strip() for line in f"{done.stdout}\n{done.stderr}".split("\n") if line.strip()]
        reason = said[-1] if said else f"status {done.returncode}"
        raise UserError("--backend", backend, f"{command[0]} failed: {reason}")
    return done.stdout


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
