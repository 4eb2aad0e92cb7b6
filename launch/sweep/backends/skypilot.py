"""The SkyPilot backend: every point is a managed job, which goes on elsewhere when its spot machine is taken away."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from launch.sweep.backends.protocol import Outcome, Settings
from launch.sweep.backends.submission import Submission, call, check_bucket, job_id, point_command
from launch.sweep.backends.tpu_environment import tpu_environment
from launch.sweep.point_state import claim
from launch.sweep.points import Point

NAME = "skypilot"
PYTHON = ".venv/bin/python"  # which `setup` makes: that of a machine may be older than the project needs
OWN_FIELDS = ("name", "run", "workdir", "num_nodes")  # of a task, which a template may not set
INSTALL = "python -m venv ../sky_env && ../sky_env/bin/pip install -r requirements-launch.txt, and put its bin on PATH"


class SkypilotBackend(Submission):
    """Launches a managed job for each point and returns; `--status` follows them by their run folders in a bucket.

    Raises:
      UserError: the template of a task is missing or sets what the sweep sets.
    """

    name, program, install = NAME, "sky", INSTALL

    def __init__(self, settings: Settings) -> None:
        self._settings, self._template = settings, read_template(settings.cluster)

    def run(self, points: Sequence[Point]) -> list[Outcome]:
        """Launch a job for each point that has none; its YAML stays in runs/<name of the sweep>/skypilot."""
        check_bucket(points)
        queued = call(["sky", "jobs", "queue", "--skip-finished", "--all"], NAME)  # without it the latest 50
        folder = Path("runs") / points[0].folder.parent.name / NAME
        return [self._submit(point, folder / f"{point.id}.yaml", job_id(point) in queued) for point in points]

    def _submit(self, point: Point, path: Path, is_queued: bool) -> Outcome:
        if is_queued:
            return Outcome(point, "submitted", f"job {job_id(point)} is not finished")
        claim(point)
        files.write_json(path, task(point, self._settings, self._template))
        try:
            call(["sky", "jobs", "launch", "--detach-run", "--yes", str(path)], NAME)
        except UserError as error:
            return Outcome(point, "failed", str(error))
        print(f"submitted job {job_id(point)}: {path}", flush=True)
        return Outcome(point, "submitted", f"job {job_id(point)}")


def read_template(file: str | None) -> dict[str, Any]:
    """Return the fields of a task that a file of the user's sets: its resources, and how the machine is set up.

    Its `setup` makes the environment `.venv` in the folder of the checkout, by which the point runs.

    Raises:
      UserError: there is no such file, it is not a mapping of what JSON can hold, or it sets a field that the sweep
        sets.
    """
    if file is None:
        raise UserError("--cluster", None, "name the YAML of a SkyPilot task with its resources and setup")
    try:
        import yaml
    except ImportError:
        raise UserError("--backend", NAME, "needs PyYAML: pip install 'coi-jax[launch]'") from None
    text = files.read_text(file, "--cluster")
    try:
        template = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of a date that is none; of lists in lists in lists
        raise UserError("--cluster", file, f"is not YAML: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(template, dict) or not isinstance(template.get("resources"), dict):
        raise UserError("--cluster", file, "should be a mapping with `resources`, as configs/clusters/v5e_spot.yaml")
    for field in OWN_FIELDS:
        if field in template:
            raise UserError("--cluster", file, f"`{field}` is set by the sweep; remove it")
    if not isinstance(template.get("envs") or {}, dict):
        raise UserError("--cluster", file, "`envs` should be a mapping of names to values")
    try:
        json.dumps(template)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError("--cluster", file, f"cannot be written as JSON ({error}); put a date in quotes") from None
    return template


def task(point: Point, settings: Settings, template: dict[str, Any]) -> dict[str, Any]:
    """Return the SkyPilot task of a point; as JSON it is YAML too.

    Args:
      point: that the task runs.
      settings: of the sweep.
      template: the user's fields.
    """
    command = [*point_command(settings, PYTHON), "--only", point.id]
    accelerator = json.dumps(template["resources"].get("accelerators", ""))
    variables = tpu_environment(accelerator, 1, point.folder.parent, template.get("envs") or {})
    return {"name": job_id(point), "workdir": ".", **template, "envs": variables, "run": shlex.join(command)}
