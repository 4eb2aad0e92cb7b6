"""A point of a sweep on two hosts: processes of four devices each, with the real trainer, in a bucket as on a pod."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from coi_jax.common import files
from coi_jax.data.task_specs import evaluation_task, training_tasks
from coi_jax.runs.metrics_rows import read_metrics
from launch.sweep.devices import follower_name
from launch.sweep.point_state import state
from launch.sweep.points import expand
from tests.helpers import cpu_devices, tiny_models
from tests.helpers.paths import ROOT
from tests.helpers.token_caches import small_config, write_caches, write_dataset

SETTINGS: dict[str, Any] = {f"model__{name}": value for name, value in tiny_models.DECODER.items()} | {
    "mesh__tensor": 2,
    "model__layers": 1,
    "model__vocabulary_size": 260,
    "data__batch__rows": 8,
    "train__length__count": 3,
    "train__log_every": 1,
    "evaluation__tests": ("proc2_test",),
    "evaluation__max_new_tokens": 4,
    "evaluation__bootstrap": 10,
}


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, ""),
        ({"JAX_PROCESS_ID": "0", "TPU_WORKER_ID": "3"}, ""),
        ({"JAX_PROCESS_ID": "2"}, "0-2"),
        ({"TPU_WORKER_ID": "0", "MEGASCALE_SLICE_ID": "1"}, "1-0"),
        ({"SKYPILOT_NODE_RANK": "1"}, "0-1"),
        ({"TPU_WORKER_ID": "WARNING: could not determine TPU worker number"}, ""),
    ],
)
def test_one_host_is_the_primary_one(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str) -> None:
    for variable in ("JAX_PROCESS_ID", "TPU_WORKER_ID", "SKYPILOT_NODE_RANK", "MEGASCALE_SLICE_ID"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert follower_name() == name


def start(process: int, address: str, sweep: Path, out: str) -> subprocess.Popen[str]:
    """Start the command of a host."""
    variables = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": cpu_devices.flags(4),
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(process),
        "JAX_COMPILATION_CACHE_DIR": f"{out}/xla",
    }
    command = [sys.executable, "-m", "launch.sweep", "--sweep", str(sweep), "--backend", "local", "--out", out]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.xdist_group("two_processes")
def test_a_point_runs_on_two_hosts(tmp_path: Path, bucket: str) -> None:
    write_dataset(tmp_path / "data", {1: 20, 2: 20})
    config = small_config(tmp_path, **SETTINGS)
    write_caches(config, [*training_tasks(config), evaluation_task(config, "proc2_test")])
    files.write_json(tmp_path / "config.json", config.model_dump(mode="json"))
    sweep = tmp_path / "sweep.py"
    sweep.write_text(f'CONFIG = "{tmp_path}/config.json"\n\n\ndef sweep():\n    yield {{"seed": 1}}\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    out = f"{bucket}/sweep"
    hosts = [start(process, address, sweep, out) for process in range(2)]
    printed = [host.communicate(timeout=240)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], printed
    (point,) = expand(sweep, {}, out)
    assert state(point) == "done"
    environment = files.read_json(point.folder / "environment.json")
    assert (environment["hosts"], environment["devices"]["count"]) == (2, 8)
    assert [row["step"] for row in read_metrics(point.folder / "metrics.jsonl")] == [1, 2, 3]
    assert "trained 3 steps" in (point.folder / "log.txt").read_text()
    assert "coi_jax.train" in (point.folder / "log-0-1.txt").read_text()
    assert [path.name for path in epath.Path(f"{out}/xla").iterdir()]  # compiled programs are kept in the bucket too
