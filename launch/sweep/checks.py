"""What is checked of all points before the first starts, besides their configs: data, weights, loggers and meshes."""

from collections.abc import Sequence

from coi_jax.chains import dataset
from coi_jax.common import hub
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.storage import Folder, as_path
from coi_jax.data import task_specs
from coi_jax.runs.checkpoint_steps import steps
from coi_jax.runs.trackers import check_installed
from launch.sweep.points import Point

WEIGHTS = "config.weights.folder"


def check_points(points: Sequence[Point]) -> None:
    """Raise UserError where a point's data or weights are missing, or the package of a service that it logs to."""
    check_data(points)
    for folder in sorted({point.config.weights.folder or "" for point in points} - {""}):
        _check_weights(folder)
    for point in points:
        check_installed(point.config.logging)


def check_data(points: Sequence[Point]) -> None:
    """Raise UserError where a point's dataset is missing, of another source than its tests, or lacks rows of a task."""
    from coi_jax.data.token_cache import count_rows  # with JAX, which --help does not need

    for folder, split in sorted({(point.config.data.folder, point.config.data.split) for point in points}):
        splits = list(dataset.read_manifest(folder, "config.data.folder")["counts"])
        if split not in splits:
            raise UserError("config.data.split", split, f"{nearest(split, splits)} (in {folder})")
    for point in points:
        task_specs.check_sources(point.config.data.folder, point.config.evaluation.tests)
        for spec in task_specs.training_tasks(point.config) if point.is_tuned else []:
            if spec.split not in dataset.read_manifest(spec.folder)["counts"]:
                hint = f"{spec.folder} has no split {spec.split}; choose another arm, or build that variant"
                raise UserError("config.arm", point.config.arm, hint)
            count_rows(spec)
        for test in point.config.evaluation.tests:
            count_rows(task_specs.evaluation_task(point.config, test))


def _check_weights(folder: str) -> None:
    """Raise UserError where a folder has no weights, or only a part of their files; the Hub is not asked."""
    from coi_jax.weights.safetensors_files import TensorFolder  # with JAX, which --help does not need

    if hub.is_hub(folder):
        return
    checkpoints = as_path(folder, WEIGHTS) / "checkpoints"
    if not checkpoints.is_dir():
        TensorFolder(Folder(folder, WEIGHTS))  # which reads the headers
    elif not steps(checkpoints):
        raise UserError(WEIGHTS, folder, "has no checkpoint yet; train it first (python -m coi_jax.train)")


def check_meshes(points: Sequence[Point], devices: int) -> None:
    """Raise UserError where the mesh of a point does not make the devices that each process has."""
    for point in points:
        try:
            point.config.mesh.sizes(devices)
        except UserError as error:
            raise UserError(f"point {point.id}: {error.field}", error.value, error.hint) from None
