import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import LOCK, folder_lock
from tests.helpers.paths import ROOT

HOLD = """
import sys, time
from coi_jax.common.folder_lock import folder_lock
with folder_lock(sys.argv[1], "workdir"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `tmp_path`/run."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_by_the_name_of_the_first_until_that_is_killed(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    folder = tmp_path / "run"
    says = rf"workdir: .*run: is in use by process {other.pid} since .*python.*: wait|; wait until it ends"
    with pytest.raises(UserError, match=says), folder_lock(folder, "workdir"):
        pytest.fail("two processes hold the lock")
    with folder_lock(folder, "workdir", ".another.lock"):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (folder / LOCK).exists()  # what a killed process leaves locks nobody out
    with folder_lock(folder, "workdir"):
        assert str(os.getpid()) in (folder / LOCK).read_text()
    assert not (folder / LOCK).exists()


def test_a_folder_is_made_and_goes_again_where_nothing_was_written(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "deep" / "run", "workdir"):
        assert (tmp_path / "deep" / "run").is_dir()
    assert not (tmp_path / "deep" / "run").exists()
    with folder_lock(tmp_path / "kept", "workdir"):
        (tmp_path / "kept" / "config.json").touch()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["config.json"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with (
        pytest.raises(UserError, match=r"workdir: .*thesis\.txt: is a file"),
        folder_lock(tmp_path / "thesis.txt", "workdir"),
    ):
        pass


def test_folders_in_buckets_are_locked_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with folder_lock("gs://bucket/run/", "workdir"):
        with folder_lock("gs://bucket/other", "workdir"):
            pass
        held = pytest.raises(UserError, match=f"is in use by process {os.getpid()}")
        with held, folder_lock("gs://bucket/run", "workdir"):
            pass
