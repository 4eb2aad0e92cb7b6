"""The slurm backend: one array job, whose tasks each run a point by the local backend on a node of a cluster.

The folder of the sweep, this checkout and its environment are where all nodes see them. A task that is preempted, or
whose time is up, saves and is queued again by its own script.
"""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from coi_jax.common import files
from coi_jax.common.errors import UserError, shorten
from coi_jax.common.storage import is_local
from coi_jax.common.wording import count_of
from launch.sweep.backends.protocol import Outcome, Settings
from launch.sweep.backends.submission import LONGEST_REASON, Submission, call, point_command, read_cluster_lines
from launch.sweep.point_state import claim
from launch.sweep.points import Point

NAME = "slurm"
SCRIPT = "slurm_job.sh"  # in the folder of the sweep
SAVE_SECONDS = 120  # before the end of its time in which a task is told to save
JOB = re.compile(r"^\s*([0-9]{1,18})(?:;\S+)?\s*$", re.MULTILINE)  # a site's programs may print a banner beside it
OWN_OPTIONS = re.compile(r"#SBATCH\s+(--(?:array|job-name|output|error|open-mode|nodes|ntasks|signal)\b|-[aJoeNn]\b)")

TEMPLATE = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@{seconds}
#SBATCH --output={output}
{options}
# The tasks of a sweep: each runs a point until it is done. Written by python -m launch.sweep --backend slurm.
points=(
{points}
)
cd {folder} || exit 1
{commands}
srun {command} --only "${{points[$SLURM_ARRAY_TASK_ID]}}"
status=$?
if [ "$status" = {interrupted} ]; then  # it was told to stop, and has saved
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$status"
"""


class SlurmBackend(Submission):
    """Submits points as an array job and returns; `--status` follows them by their run folders.

    Raises:
      UserError: the file of options is missing, no script, or sets what the sweep sets.
    """

    name, program, install = NAME, "sbatch", "run this on a login node of the cluster"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._options, self._commands = read_options(settings.cluster)

    def run(self, points: Sequence[Point]) -> list[Outcome]:
        """Submit an array job of points; raise UserError where one of this folder is still queued or running."""
        folder = points[0].folder.parent
        if not is_local(folder):
            raise UserError("--out", folder, "name a folder of the file system that all nodes share")
        script = job_script(points, self._settings, self._options, self._commands)
        name = job_name(folder)
        if queued := JOB.search(call(["squeue", "--me", f"--name={name}", "--noheader", "--format=%A"], NAME)):
            hint = f"still has job {queued[1]} in the queue; wait until it ends, or scancel --name={name}"
            raise UserError("--out", folder, hint)
        for point in points:
            claim(point)
        files.write_text(folder / SCRIPT, script)
        number = submit(folder / SCRIPT)
        print(f"submitted job {number} of {count_of(len(points), 'task')}: {folder / SCRIPT}", flush=True)
        return [Outcome(point, "submitted", f"task {place} of job {number}") for place, point in enumerate(points)]


def submit(script: os.PathLike[str]) -> str:
    """Submit a script; return the number of its job, which stands alone on a line, or before the cluster's name.

    Raises:
      UserError: sbatch fails, or names no job.
    """
    said = call(["sbatch", "--parsable", os.fspath(script)], NAME)
    if found := JOB.search(said):
        return found[1]
    printed = f"printed {shorten(said.strip(), LONGEST_REASON)}" if said.strip() else "printed nothing"
    by_hand = shlex.join(["sbatch", "--parsable", os.fspath(script)])
    hint = f"sbatch {printed}, no number of a job; see squeue --me, and try it by hand: {by_hand}"
    raise UserError("--backend", NAME, hint)


def read_options(file: str | None) -> tuple[str, str]:
    """Return the `#SBATCH` lines of a file of options, and its other lines, which are run before each point.

    Raises:
      UserError: there is no such file, it is no script, or it sets an option that the sweep sets.
    """
    if file is None:
        return "", ""
    lines = list(read_cluster_lines(file))
    if not any(line.startswith(("#SBATCH", "#!")) for line in lines):  # those of the other backends would be commands
        hint = "has no line of #SBATCH or #!/bin/bash; name a script as configs/clusters/slurm.sh"
        raise UserError("--cluster", file, hint)
    for line in lines:
        if found := OWN_OPTIONS.match(line):
            raise UserError("--cluster", file, f"{found[1]} is set by the sweep; remove that line")
    options = [line for line in lines if line.startswith("#SBATCH")]
    commands = [line for line in lines if not line.startswith(("#SBATCH", "#!"))]
    return "\n".join(options), "\n".join(commands)


def job_name(folder: os.PathLike[str]) -> str:
    """Return the name of the jobs of a sweep's folder, which no other folder's have; a comma would make it two."""
    path = Path(folder).absolute()
    return f"coi-{re.sub('[^A-Za-z0-9._-]+', '_', path.name)}-{files.digest(str(path))[:6]}"


def job_script(points: Sequence[Point], settings: Settings, options: str, commands: str) -> str:
    """Return the script of an array job.

    Args:
      points: one for each task.
      settings: of the sweep, which each task runs again for its point alone.
      options: lines of `#SBATCH`.
      commands: lines of shell that prepare the environment.
    """
    folder = Path(points[0].folder.parent).absolute()
    return TEMPLATE.format(
        name=job_name(folder),
        last=len(points) - 1,
        seconds=SAVE_SECONDS,
        output=shlex.quote(f"{str(folder).replace('%', '%%')}/slurm-%A_%a.txt"),
        options=options,
        points="\n".join(f"  {shlex.quote(point.id)}" for point in points),
        folder=shlex.quote(os.getcwd()),
        commands=commands,
        command=shlex.join(point_command(settings, sys.executable)),
        interrupted=130,
    )
