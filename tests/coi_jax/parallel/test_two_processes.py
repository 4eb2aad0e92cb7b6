"""Two real processes of four devices each, against one process of eight."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore

from coi_jax.common import cli, files
from coi_jax.runs import checkpoint_steps
from tests.helpers import cpu_devices, tiny_models, two_process_worker
from tests.helpers.paths import ROOT
from tests.helpers.token_caches import small_config, write_dataset

# What the collectives of a CPU print, from several threads, so that lines may be torn, and one be the end of another.
GLOO = re.compile(r"\[Gloo\]|is connected to|peer ranks")
GLOO_LINE = "[Gloo] Rank N is connected to N peer ranks. Expected number of connected peer ranks is : N"
pytestmark = pytest.mark.xdist_group("two_processes")  # its fixtures take long: one worker makes them

STEPS = 16
SECONDS = 240  # after which something hangs

MESH = {"mesh.replica": 1, "mesh.fsdp": 4, "mesh.tensor": 2, "mesh.sequence": 1}
SETTINGS = (
    MESH
    | {f"model.{name}": value for name, value in tiny_models.DECODER.items()}
    | {
        "model.vocabulary_size": 260,
        "data.batch.rows": 8,
        "train.length.count": STEPS,
        "train.log_every": 1,
        "train.checkpoint_every": 12,
        "optimizer.learning_rate": 1e-3,
        "evaluation.tests": ("proc2_test",),
        "evaluation.max_new_tokens": 8,
        "evaluation.batch": 3,
        "evaluation.bootstrap": 50,
    }
)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, what it printed, the status of each of its commands."""

    status: int
    printed: str
    errors: str
    commands: list[int]


@dataclass(frozen=True)
class Launch:
    """Both processes at one stage."""

    folder: Path
    stage: str

    def start(self) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        common = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": cpu_devices.flags(4),
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "xla"),
        }
        command = [sys.executable, "-m", "tests.helpers.two_process_worker", str(self.folder), self.stage]
        environments = [common | {"JAX_PROCESS_ID": str(index)} for index in range(2)]
        return [
            subprocess.Popen(command, cwd=ROOT, env=one, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for one in environments
        ]

    def finish(self, processes: list[subprocess.Popen[str]]) -> list[Ended]:
        ended = []
        try:
            for index, process in enumerate(processes):
                printed, errors = process.communicate(timeout=SECONDS)
                path = self.folder / f"{self.stage}.{index}.json"
                commands = json.loads(path.read_text()) if path.exists() else []
                said = "".join(line for line in printed.splitlines(keepends=True) if not is_of_gloo(line))
                ended.append(Ended(process.returncode, said, errors, commands))
        finally:
            for process in processes:
                process.kill()
        return ended


def is_of_gloo(line: str) -> bool:
    return GLOO.search(line) is not None or re.sub(r"\d+", "N", line.strip()) in GLOO_LINE


def make_folder(folder: Path) -> Path:
    """A dataset and a config; no token caches yet."""
    write_dataset(folder / "data", {1: 40, 2: 40})
    files.write_json(folder / "config.json", small_config(folder, **SETTINGS).model_dump(mode="json"))
    return folder


def logged(folder: Path) -> list[dict[str, Any]]:
    path = folder / "run" / "metrics.jsonl"
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def wait_for_step(folder: Path, step: int, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + SECONDS
    path = folder / "run" / "metrics.jsonl"
    while not (path.exists() and len(logged(folder)) >= step) and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes), Launch(folder, "stop").finish(processes)
        time.sleep(0.1)


@dataclass(frozen=True)
class Story:
    """Two processes that were stopped and went on, and the steps that were saved; the newest was damaged in between."""

    folder: Path
    stopped: list[Ended]
    saved: list[int]
    ended: list[Ended]


def damage(checkpoint: Path) -> None:
    """Change one stored number of the parameters; a flipped bit may hit bytes that the store no longer refers to."""
    base = {"driver": "file", "path": f"{checkpoint / 'params'}/"}
    kvstore = {"driver": "ocdbt", "base": base, "path": "final_norm.scale/"}
    number = tensorstore.open({"driver": "zarr", "kvstore": kvstore}, open=True).result()[0]
    number.write(number.read().result() + 1).result()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = make_folder(tmp_path_factory.mktemp("two"))
    stop = Launch(folder, "stop")
    processes = stop.start()
    wait_for_step(folder, 3, processes)
    processes[1].send_signal(signal.SIGTERM)
    stopped = stop.finish(processes)
    saved = checkpoint_steps.steps(folder / "run" / "checkpoints")
    damage(folder / "run" / "checkpoints" / str(saved[-1]))
    end = Launch(folder, "end")
    return Story(folder, stopped, saved, end.finish(end.start()))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same commands in this process, which has eight devices."""
    folder = make_folder(tmp_path_factory.mktemp("one"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)
        patch.setattr(
            "coi_jax.data.token_cache._write_in_child", lambda *args: two_process_worker.write_missing(folder, *args)
        )
        patch.setattr("coi_jax.parallel.processes.start_jax", lambda **_: None)
        assert [cli.run(command) for command in two_process_worker.commands(folder, "end")] == [0, 0, 0]
    return folder


def test_one_of_them_gets_sigterm_and_both_stop_and_save_at_the_same_step(two: Story) -> None:
    assert [ended.status for ended in two.stopped] == [0, 0], two.stopped
    step = two.saved[-1]
    assert 3 <= step < STEPS
    assert len(two.saved) == 2
    assert f"stopped and saved at step {step} of {STEPS}" in two.stopped[0].printed
    assert [row["step"] for row in logged(two.folder)] == list(range(1, STEPS + 1))


def test_a_mistake_is_one_line_and_status_2_on_each(two: Story) -> None:
    assert [ended.commands for ended in two.stopped] == [[2, 0], [2, 0]]
    assert all("error: config.mesh: " in ended.errors for ended in two.stopped)


def test_they_go_on_before_a_damaged_checkpoint_and_only_the_first_speaks_and_writes_caches(two: Story) -> None:
    assert [(ended.status, ended.commands) for ended in two.ended] == [(0, [0, 0, 0])] * 2, two.ended
    older, newest = two.saved
    assert re.search(rf"/{newest} is damaged \(.*it is kept as damaged-{newest}", two.ended[0].errors)
    assert f"going on from step {older}" in two.ended[0].errors
    assert f"trained {STEPS} steps" in two.ended[0].printed
    assert two.stopped[1].printed == two.ended[1].printed == ""
    assert (two.folder / "writers.txt").read_text().split() == ["0", "0"]  # to train, and to evaluate


def test_losses_are_those_of_one_process(two: Story, one: Path) -> None:
    losses, expected = ([row["loss"] for row in logged(folder)] for folder in (two.folder, one))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert losses[-1] < losses[0]


def test_predictions_and_scores_are_those_of_one_process(two: Story, one: Path) -> None:
    folders = [folder / "run" / "eval" / "proc2_test" for folder in (two.folder, one)]
    predictions = [sorted((folder / "predictions.jsonl").read_text().splitlines()) for folder in folders]
    assert len(predictions[0]) == 5
    assert predictions[0] == predictions[1]
    scores = [files.read_json(folder / "results.json")["scores"] for folder in folders]
    assert scores[0] == scores[1]


def test_an_answer_is_printed_once(two: Story) -> None:
    answer = json.loads(two.ended[0].printed.splitlines()[-1])
    assert answer["instruction"].startswith("Rotate by 0.")
    assert not answer["longer_than_trained"]


def test_the_run_folder_tells_of_both(two: Story) -> None:
    environment = files.read_json(two.folder / "run" / "environment.json")
    assert environment["hosts"] == 2
    assert environment["devices"]["count"] == 8
