"""A run that moves between numbers of devices and processes takes the same steps as one that never moved."""

import dataclasses
import functools
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import cpu_devices, kill_targets, soak_runs
from tests.helpers.kill_targets import STEPS
from tests.helpers.killed import Run, Victim

pytestmark = pytest.mark.xdist_group("kills")  # commands are forked from one server

MESH = ("--config.mesh.replica=1", "--config.mesh.fsdp=-1")
SETTINGS: dict[str, Any] = {
    "train.length.count": STEPS,
    "data.batch.rows": 8,
    "model.vocabulary_size": 264,
    "mesh.fsdp": -1,
}
# Processes, and devices of each.
SIZES = ((1, 8), (1, 4), (2, 4), (1, 2))
TOLERANCE = 1e-5
NOTICED = 120.0  # seconds after which a host that died has ended the others, by the guide to pods


def make(folder: Path) -> Path:
    folder.mkdir()
    soak_runs.make_data(folder, **SETTINGS)
    return folder


def start(folder: Path, processes: int, devices: int) -> list[Run]:
    """The command, on so many processes of so many devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    victim = Victim(functools.partial(kill_targets.train_slowly, flags=MESH), kill_targets.TRAINING.end, {})
    common = {"XLA_FLAGS": cpu_devices.flags(devices)}
    joined = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)} if processes > 1 else {}
    return [
        Run(dataclasses.replace(victim, environment=common | joined | {"JAX_PROCESS_ID": str(index)}), folder, index)
        for index in range(processes)
    ]


def finish(runs: Sequence[Run], status: int = 0) -> None:
    for run in runs:
        assert run.wait() == status, run.said()


def numbers(end: dict[str, Any]) -> np.ndarray:
    """All parameters and moments."""
    return np.concatenate([np.frombuffer(data, np.float32) for name, data in sorted(end.items()) if name[0] == "["])


def test_a_run_that_moves_ends_as_one_that_stays(
    tmp_path: Path, count: Callable[[str], int], seed: int, measured: Callable[..., None]
) -> None:
    stays, moves, chance = make(tmp_path / "stays"), make(tmp_path / "moves"), random.Random(seed)
    finish(start(stays, *SIZES[0]))
    sizes = SIZES[: count("sizes")]
    for number, (processes, devices) in enumerate(sizes[:-1]):
        runs = start(moves, processes, devices)
        least = (number + 1) * STEPS // len(sizes) - chance.randrange(2)
        assert runs[0].wait_until(lambda _: kill_targets.logged(moves) >= least, chance.uniform(0, 0.1)), runs[0].said()  # noqa: B023
        for run in runs:
            run.send(signal.SIGKILL if number % 2 else signal.SIGTERM)
        for run in runs:
            run.wait()
    finish(start(moves, *sizes[-1]))
    wanted, found = (soak_runs.end_of_training(folder / "run") for folder in (stays, moves))
    steps = [(row["step"], row["target_tokens"]) for row in wanted["metrics"]]
    assert [(row["step"], row["target_tokens"]) for row in found["metrics"]] == steps
    losses = [abs(a["loss"] - b["loss"]) for a, b in zip(wanted["metrics"], found["metrics"], strict=True)]
    apart = float(np.max(np.abs(numbers(wanted) - numbers(found))))
    measured(sizes=[f"{processes}x{devices}" for processes, devices in sizes], losses=max(losses), state=apart)
    assert max(*losses, apart) < TOLERANCE, f"--soak_seed {seed}"


def test_a_host_that_fails_ends_the_others_and_the_same_command_goes_on(
    failure: signal.Signals, tmp_path: Path, measured: Callable[..., None]
) -> None:
    folder = make(tmp_path / "run")
    first, second = start(folder, 2, 4)
    assert first.wait_until(lambda _: kill_targets.logged(folder) >= 4, 0), first.said()
    second.send(failure)
    began = time.monotonic()
    assert first.wait() != 0
    seconds = time.monotonic() - began
    second.send(signal.SIGKILL)
    second.wait()
    measured(noticed_after_seconds=round(seconds, 1), finished_steps=kill_targets.logged(folder))
    assert seconds < NOTICED
    finish(start(folder, 2, 4))
    assert [row["step"] for row in soak_runs.metrics(folder / "run")] == [*range(1, STEPS + 1)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A failure of a host is waited for, for two minutes: with full counts only."""
    if "failure" in metafunc.fixturenames:
        found = [signal.SIGKILL, signal.SIGSTOP] if metafunc.config.getoption("--full") else []
        metafunc.parametrize("failure", found, ids=lambda number: "dies" if number == signal.SIGKILL else "hangs")
