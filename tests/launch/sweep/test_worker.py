"""A worker's points against the same points in processes of their own."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from coi_jax.common import files
from coi_jax.config.run import RunConfig
from coi_jax.data.task_specs import evaluation_task, training_tasks
from coi_jax.models import build
from coi_jax.runs import checkpoint
from coi_jax.runs.metrics_rows import read_metrics
from launch.sweep.devices import DeviceShare
from launch.sweep.worker_process import WorkerProcess
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import DECODER
from tests.helpers.token_caches import small_config, write_caches
from tests.helpers.trained_runs import BYTES, write_tests

TIMES = ("seconds_per_step", "tokens_per_second", "examples_per_second", "mfu")
# Of every process here: what is compiled is logged, and compiled in little time.
ENVIRONMENT = {"XLA_FLAGS": "", "JAX_LOG_COMPILES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def config_of(folder: Path, **overrides: Any) -> RunConfig:
    """Three steps of a tiny decoder; shapes do not depend on the arm."""
    model = {f"model.{name}": value for name, value in DECODER.items()} | {"model.layers": 1}
    fixed = {
        "mesh.fsdp": 1,
        "train.length.count": 3,
        "train.log_every": 1,
        "data.batch.rows": 2,
        "evaluation.tests": ("proc2_test",),
        "evaluation.max_new_tokens": 4,
        "evaluation.bootstrap": 20,
    }
    return small_config(folder, **model | fixed | overrides)


def commands(folder: Path, config: RunConfig, name: str) -> list[list[str]]:
    """What trains and scores a run."""
    files.write_json(folder / f"{name}.json", config.model_dump(mode="json"))
    workdir = ["--workdir", str(folder / name)]
    return [["coi_jax.train", "--config", str(folder / f"{name}.json"), *workdir], ["coi_jax.evaluate", *workdir]]


def run_in_worker(all_commands: list[list[str]]) -> tuple[list[str], list[int]]:
    """The output and the statuses of commands in a process of their own."""
    output: list[str] = []
    worker = WorkerProcess(DeviceShare(1))
    statuses = [worker.run(command, output.append) for command in all_commands]
    worker.close()
    return output, statuses


def results(folder: Path, name: str, config: RunConfig) -> tuple[Any, ...]:
    """All that a run computed."""
    run = folder / name
    params = checkpoint.restore_params(run / "checkpoints", build(config.model, BYTES))
    rows = [
        {key: value for key, value in row.items() if key not in TIMES} for row in read_metrics(run / "metrics.jsonl")
    ]
    scored = json.loads((run / "eval/proc2_test/results.json").read_text())
    return params, rows, (run / "eval/proc2_test/predictions.jsonl").read_text(), scored["scores"]


def test_points_of_one_process_equal_those_of_their_own_and_are_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    write_tests(tmp_path / "data", 4)
    first, second = config_of(tmp_path), config_of(tmp_path, seed=2)  # as many targets in the fullest step
    write_caches(first)
    write_caches(first, [evaluation_task(first, "proc2_test")])
    assert training_tasks(first) == training_tasks(second)
    wrong = ["coi_jax.train", "--config", "none.py", "--workdir", "none"]
    points = [*commands(tmp_path, first, "first"), *commands(tmp_path, second, "second")]
    output, statuses = run_in_worker([*points, wrong])
    assert statuses == [0, 0, 0, 0, 2], "".join(output)
    assert output[-1].startswith("error: config: none.py")
    scored = next(number for number, line in enumerate(output) if "scores x 100" in line)  # the first point is done
    for program in ("step", "insert", "decode"):
        compiling = f"Compiling jit({program})"
        assert any(compiling in line for line in output[:scored]), "".join(output)
        assert not any(compiling in line for line in output[scored:]), "".join(output)
    assert run_in_worker(commands(tmp_path, second, "alone"))[1] == [0, 0]
    (params, *rest), (expected, *expected_rest) = (
        results(tmp_path, "second", second),
        results(tmp_path, "alone", second),
    )
    assert rest == expected_rest
    jax.tree.map(np.testing.assert_array_equal, params, expected)
