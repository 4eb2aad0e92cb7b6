"""A disk that is full, at any moment of a command, and one that cannot be written: one line, and the same end later."""

import contextlib
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coi_jax.common.cli import EXIT_USER_ERROR
from tests.helpers import kill_targets, killed
from tests.helpers.kill_targets import EVALUATION, TRAINING
from tests.helpers.killed import Run, Victim

pytestmark = pytest.mark.xdist_group("kills")  # commands are forked from one server

LARGE = 2**26  # bytes, which no command needs
VICTIMS = {"training": TRAINING, "evaluation": EVALUATION}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Only the superuser of a machine may mount a disk of some size; elsewhere there is none to fill."""
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
