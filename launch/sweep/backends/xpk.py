"""The xpk backend: every point is a workload of a GKE cluster, which Kueue starts when its TPU slices are free."""

import shlex
from collections.abc import Sequence

from coi_jax.common.errors import UserError
from launch.sweep.backends.protocol import Outcome, Settings
from launch.sweep.backends.submission import (
    Submission,
    call,
    check_bucket,
    job_id,
    point_command,
    read_cluster_lines,
)
from launch.sweep.backends.tpu_environment import tpu_environment
from launch.sweep.point_state import claim
from launch.sweep.points import Point

NAME = "xpk"
FLAG_FILE = "file of flags of xpk workload create, as configs/clusters/xpk_v5e.txt"
OWN_FLAGS = ("--workload", "--command", "--dry-run")
INSTALL = "python -m venv ../xpk_env && ../xpk_env/bin/pip install xpk==1.16.0, and put its bin on PATH"


class XpkBackend(Submission):
    """Creates a workload for each point and returns; `--status` follows them by their run folders in a bucket.

    Raises:
      UserError: the file of flags is missing or sets what the sweep sets.
    """

    name, program, install = NAME, "xpk", INSTALL

    def __init__(self, settings: Settings) -> None:
        self._settings, self._flags = settings, read_flags(settings.cluster)

    def run(self, points: Sequence[Point]) -> list[Outcome]:
        """Create a workload for each point, once xpk has accepted the command of the first; it refuses a second one."""
        check_bucket(points)
        call([*workload_command(points[0], self._settings, self._flags), "--dry-run"], NAME)
        return [self._submit(point) for point in points]

    def _submit(self, point: Point) -> Outcome:
        claim(point)
        try:
            call(workload_command(point, self._settings, self._flags), NAME)
        except UserError as error:
            return Outcome(point, "failed", str(error))
        print(f"submitted workload {job_id(point)}: {point.id}", flush=True)
        return Outcome(point, "submitted", f"workload {job_id(point)}")


def read_flags(file: str | None) -> list[str]:
    """Return the flags of `xpk workload create` that a file has, one or more on a line; `#` begins a comment.

    Raises:
      UserError: there is no such file, it holds something else, or it sets a flag that the sweep sets.
    """
    if file is None:
        raise UserError("--cluster", None, f"name a {FLAG_FILE}")
    flags = [flag for number, line in enumerate(read_cluster_lines(file), 1) for flag in _flags(line, file, number)]
    if not flags:
        raise UserError("--cluster", file, f"has no flag; name a {FLAG_FILE}")
    for flag in flags:
        if (name := flag.partition("=")[0]) in OWN_FLAGS:
            raise UserError("--cluster", file, f"{name} is set by the sweep; remove it")
    return flags


def _flags(line: str, file: str, number: int) -> list[str]:
    """Return the flags of a line; raise UserError where it begins with none, as those of the other backends do."""
    try:
        flags = shlex.split(line, comments=True)
    except ValueError as error:
        raise UserError("--cluster", f"{file}:{number}", f"{error}; correct the line") from None
    if flags and not flags[0].startswith("--"):
        raise UserError("--cluster", f"{file}:{number}", f"begins with {flags[0]!r}, no flag; name a {FLAG_FILE}")
    return flags


def workload_command(point: Point, settings: Settings, flags: Sequence[str]) -> list[str]:
    """Return the command that creates a point's workload.

    Args:
      point: that the workload runs.
      settings: of the sweep.
      flags: the user's.
    """
    command = shlex.join([*point_command(settings, "python"), "--only", point.id])
    named = ["xpk", "workload", "create", f"--workload={job_id(point)}", f"--command={command}", *flags]
    return [*named, *environment_flags(point, flags)]


def environment_flags(point: Point, flags: Sequence[str]) -> list[str]:
    """Return the flags that set a job's environment; none where the user names a file of it, which xpk takes alone."""
    values = {name: value for name, _, value in (flag.partition("=") for flag in flags)}
    if "--env-file" in values:
        return []
    own = {flag.split("=")[1] for flag in flags if flag.startswith("--env=")}
    slices = values.get("--num-slices", "1")
    accelerator, count = values.get("--tpu-type", ""), int(slices) if slices.isdecimal() else 1
    variables = tpu_environment(accelerator, count, point.folder.parent, {})
    return [f"--env={name}={value}" for name, value in variables.items() if name not in own]
