"""A disk that is full, at any moment of a command, and one that cannot be written: one line, and the same end later."""

import contextlib
import dataclasses
import functools
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from coi_jax import train
from coi_jax.common import cli
from coi_jax.common.cli import EXIT_USER_ERROR
from tests.helpers import bucket as buckets
from tests.helpers import failing_disk, kill_targets, killed, soak_runs
from tests.helpers.kill_targets import EVALUATION, TRAINING
from tests.helpers.killed import Run, Victim

pytestmark = pytest.mark.xdist_group("kills")  # commands are forked from one server

LARGE = 2**26  # bytes, which no command needs
VICTIMS = {"TRAINING": TRAINING, "EVALUATION": EVALUATION}
FAULT_RATES = (100, 1000)  # of so many calls one fails, in turn
MOST_TRIES = 50
ALL_DEVICES = {"data.batch.rows": 8, "mesh.replica": 8}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Only the superuser of a machine may mount a disk of some size, and a C compiler makes one that fails."""
    if "compiler" in metafunc.fixturenames:
        metafunc.parametrize("compiler", failing_disk.COMPILERS, ids=["cc"] * len(failing_disk.COMPILERS))
    if "mounts" in metafunc.fixturenames:
        metafunc.parametrize("mounts", [True] if can_mount() else [], ids=["tmpfs"] if can_mount() else [])


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        return done.returncode == 0 and subprocess.run(["umount", folder], check=False).returncode == 0


def remount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", "-o", ",".join(["remount", *options]), folder], check=True)


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A file system of its own in a folder."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def used(folder: Path) -> int:
    return shutil.disk_usage(folder).used


def make(victim: Victim, folder: Path, trained: Path) -> None:
    """Prepares a folder, for an evaluation with a copy of a run that was trained."""
    if victim is EVALUATION:
        shutil.copytree(trained, folder / "run")
    else:
        kill_targets.make_training(folder)


@pytest.fixture(scope="session")
def wanted(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Mapping[str, dict[str, Any]]:
    """The ends of commands on a sound disk."""
    folder = tmp_path_factory.mktemp("sound") / "disk"
    make(EVALUATION, folder, trained)
    return {"TRAINING": TRAINING.end(trained.parent), "EVALUATION": killed.measure(EVALUATION, folder)[1]}


def last_line(run: Run) -> str:
    return run.said().rstrip("\n").split("\n")[-1]


@pytest.mark.parametrize("name", VICTIMS)
def test_a_full_disk(
    mounts: bool,
    name: str,
    tmp_path: Path,
    trained: Path,
    count: Callable[[str], int],
    seed: int,
    measured: Callable[..., None],
) -> None:
    victim, chance, stopped = VICTIMS[name], random.Random(f"{seed} {name}"), 0
    with disk(tmp_path / "whole") as whole:
        make(victim, whole, trained)
        before = used(whole)
        _, wanted = killed.measure(victim, whole)
        needed = used(whole) - before
    for number in range(count("faults")):
        with disk(tmp_path / f"full{number}") as folder:
            make(victim, folder, trained)
            remount(folder, f"size={used(folder) + chance.randrange(needed)}")
            run = Run(victim, folder)
            status, where = run.wait(), f"--soak_seed {seed}, disk {number}: {run.said()}"
            if status:
                assert status == EXIT_USER_ERROR, where
                assert last_line(run).startswith("error: "), where
                assert "No space left on device" in last_line(run), where
                stopped += 1
            remount(folder, f"size={LARGE}")
            _, found = killed.measure(victim, folder)
            assert found == wanted, where
    measured(disks=count("faults"), stopped=stopped, bytes_needed=needed)


@pytest.mark.parametrize("name", VICTIMS)
def test_a_disk_that_cannot_be_written(mounts: bool, name: str, tmp_path: Path, trained: Path) -> None:
    victim = VICTIMS[name]
    with disk(tmp_path / "disk") as folder:
        make(victim, folder, trained)
        remount(folder, "ro")
        run = Run(victim, folder)
        assert run.wait() == EXIT_USER_ERROR, run.said()
        assert last_line(run).startswith("error: "), run.said()
        assert "Read-only file system" in last_line(run), run.said()
        remount(folder, "rw")
        killed.measure(victim, folder)


def check_error(status: int, said: str, where: str) -> None:
    """One line at the end names what failed; no traceback comes before it."""
    assert status == EXIT_USER_ERROR, where
    assert said.rstrip("\n").split("\n")[-1].startswith("error: "), where
    assert "Traceback" not in said, where


@pytest.mark.parametrize("name", VICTIMS)
def test_calls_of_a_disk_that_fail(
    compiler: str,
    name: str,
    tmp_path: Path,
    trained: Path,
    wanted: Mapping[str, dict[str, Any]],
    count: Callable[[str], int],
    seed: int,
    measured: Callable[..., None],
) -> None:
    library, stopped = failing_disk.compile_library(compiler, tmp_path), 0
    for number in range(count("faults")):
        folder = tmp_path / f"disk{number}"
        make(VICTIMS[name], folder, trained)
        faults = failing_disk.faults(folder, library, 1000 * seed + number, FAULT_RATES[number % 2])
        status, said = failing_disk.run(name, folder, faults)
        where = f"--soak_seed {seed}, disk {number}: {said}"
        if status:
            check_error(status, said, where)
            assert str(folder) in said.rstrip("\n").split("\n")[-1], where
            stopped += 1
        assert killed.measure(VICTIMS[name], folder)[1] == wanted[name], where
        assert not list(folder.glob("run/checkpoints/damaged-*")), f"unread is not damaged: {where}"
    measured(disks=count("faults"), stopped=stopped)


@pytest.mark.parametrize("name", VICTIMS)
def test_calls_of_a_disk_that_are_slow(
    compiler: str, name: str, tmp_path: Path, trained: Path, wanted: Mapping[str, dict[str, Any]], seed: int
) -> None:
    folder = tmp_path / "disk"
    make(VICTIMS[name], folder, trained)
    library = failing_disk.compile_library(compiler, tmp_path)
    status, said = failing_disk.run(name, folder, failing_disk.faults(folder, library, seed, 50, seconds=0.05))
    assert status == 0, said
    assert VICTIMS[name].end(folder) == wanted[name]


@pytest.mark.parametrize("name", VICTIMS)
def test_rights_that_are_missing(
    name: str, tmp_path: Path, trained: Path, wanted: Mapping[str, dict[str, Any]]
) -> None:
    folder = tmp_path / "disk"
    make(VICTIMS[name], folder, trained)
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    status, said = failing_disk.run(name, folder, {}, failing_disk.WITHOUT_PRIVILEGES)
    check_error(status, said, said)
    assert "Permission denied" in said
    for path in folders:
        path.chmod(0o755)
    assert killed.measure(VICTIMS[name], folder)[1] == wanted[name]


def train_in_a_bucket(folder: epath.Path, every: int, seed: int, said: Callable[[], str]) -> int:
    """Give the command again until it is done; return how often that was. Of so many calls one fails."""
    soak_runs.make_data(folder, **{"train.length.count": 4, "train.checkpoint_every": 2} | ALL_DEVICES)
    for trial in range(MOST_TRIES):
        with buckets.FAULTS.one_in(every, seed + trial):
            status = cli.run(lambda: train.main(soak_runs.training(folder / "config.json", folder / "run")))
        if status == 0:
            return trial + 1
        check_error(status, said(), f"seed {seed}, trial {trial}")
    raise AssertionError(f"not done after {MOST_TRIES} tries")


def test_calls_of_a_bucket_that_fail(
    bucket: str,
    count: Callable[[str], int],
    seed: int,
    measured: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    ends, tries = list[Any](), list[int]()
    for number in range(count("faults") + 1):
        folder = epath.Path(bucket) / f"place{number}"
        every = 400 if number else 0
        tries.append(train_in_a_bucket(folder, every, 1000 * (seed + number), lambda: capfd.readouterr().err))
        checkpoints = folder / "run" / "checkpoints"
        assert [path.name for path in checkpoints.iterdir()] == ["2", "4"], number
        ends.append((soak_runs.metrics(folder / "run"), soak_runs.arrays(checkpoints / "4")))
        assert ends[-1] == ends[0], number
    measured(places=count("faults"), commands=sum(tries[1:]))


def test_a_clock_that_jumps_back(tmp_path: Path, wanted: Mapping[str, dict[str, Any]]) -> None:
    """Between two commands, by a day."""
    folder = tmp_path / "disk"
    make(TRAINING, folder, folder)
    first = Run(TRAINING, folder)
    assert first.wait_until(TRAINING.events["step"], 0)
    first.send(signal.SIGTERM)
    assert first.wait() == 0, first.said()
    later = dataclasses.replace(TRAINING, command=functools.partial(kill_targets.train_at, -86_400))
    assert killed.measure(later, folder)[1] == wanted["TRAINING"]
