"""Runs that tests of reliability train and evaluate, and all that two of them must have in common at the end."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coi_jax.common import files
from coi_jax.data.task_specs import evaluation_task, validation_tasks
from coi_jax.runs import checkpoint_steps, read_back
from coi_jax.runs.metrics_rows import read_metrics
from tests.helpers import tiny_models
from tests.helpers.event_files import shown_scalars
from tests.helpers.token_caches import small_config, write_caches, write_dataset

STEPS, INTERVAL, KEPT = 9, 3, 2
TEST, TESTS, VALIDATION = "proc2_test", 9, 4
SETTINGS: dict[str, Any] = {f"model.{name}": value for name, value in tiny_models.DECODER.items()} | {
    "model.layers": 1,
    "data.length": 128,
    "data.batch.rows": 2,
    "mesh.replica": 1,
    "mesh.fsdp": 1,
    "train.length.count": STEPS,
    "train.log_every": 1,
    "train.checkpoint_every": INTERVAL,
    "train.keep_checkpoints": KEPT,
    "optimizer.learning_rate": 1e-3,
    "evaluation.tests": (TEST,),
    "evaluation.max_new_tokens": 6,
    "evaluation.batch": 2,
    "evaluation.bootstrap": 20,
}
# Numbers that differ between two runs that are equal otherwise.
CLOCK = re.compile(r"second|mfu|bytes|time|per_s|wait|save")


def make_data(folder: Path, **overrides: Any) -> Path:
    """A dataset, the token caches of training and of a test set, and the config of a run, whose path is returned."""
    write_dataset(folder / "data", {1: 20, 2: 20}, tests=TESTS, validation=VALIDATION)
    config = small_config(folder, **SETTINGS | overrides)
    write_caches(config, [evaluation_task(config, TEST)])
    write_caches(config, validation_tasks(config, "validation"))
    write_caches(config)
    files.write_json(folder / "config.json", config.model_dump(mode="json"))
    return folder / "config.json"


def training(config: Path, run: Path) -> list[str]:
    """The command line of `coi_jax.train`."""
    return [f"--config={config}", f"--workdir={run}"]


def end_of_training(run: Path) -> dict[str, Any]:
    """All that training leaves, but for clocks: arrays of the newest checkpoint, and both files of metrics."""
    step = max(checkpoint_steps.steps(run / "checkpoints"))
    return {"step": step, "metrics": metrics(run), "events": events(run), **arrays(run / "checkpoints" / str(step))}


def arrays(checkpoint: Path) -> dict[str, bytes]:
    """The numbers of a checkpoint, as they are stored: parameters and optimizer state."""
    position = files.read_json(checkpoint / "position" / "metadata")
    found = {}
    for path in position["arrays"]:
        item, *keys = read_back._parts(path)
        store = read_back.open_array(checkpoint / item, ".".join(keys))
        found[path] = np.asarray(store.read().result()).tobytes()
    return found


def metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without what a clock says."""
    return [_timeless(row) for row in read_metrics(run / "metrics.jsonl")]


def events(run: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows, without what a clock says."""
    return _timeless(shown_scalars(run / "tensorboard"))


def _timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not CLOCK.search(name)}


def end_of_evaluation(run: Path) -> dict[str, Any]:
    """All that an evaluation leaves, but for where it was."""
    folder = run / "eval" / TEST
    results = files.read_json(folder / "results.json")
    # Names of the run's folder and of the checkpoint's files, of which some hold nothing that is evaluated.
    for name in ("run", "checkpoint"):
        results["provenance"].pop(name)
    results.pop("sha256")
    return {"predictions": (folder / "predictions.jsonl").read_bytes(), "results": results}
