import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PARENT = """
import os, subprocess, sys
from coi_jax.common import child_processes
child = subprocess.Popen([sys.executable, *sys.argv[1:]], env=os.environ | child_processes.environment())
print(child.pid, flush=True)
child.wait()
"""
AT_ONCE = "child_processes.end_with_parent(); place.write_text('ready'); time.sleep(60)"
BY_POLLING = "parent = os.getppid(); place.write_text('ready'); child_processes.watch_parent(parent)"
CHILD = """
import os, pathlib, signal, sys, time
from coi_jax.common import child_processes
place = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: (place.write_text("saved"), sys.exit(0)))
"""


def wait_for(place: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not (place.exists() and place.read_text() == text):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("way", [AT_ONCE, BY_POLLING], ids=["at once", "by polling"])
def test_a_child_is_told_to_save_and_end_when_its_parent_is_killed(tmp_path: Path, way: str) -> None:
    place = tmp_path / "said"
    command = [sys.executable, "-c", PARENT, "-c", CHILD + way, str(place)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for(place, "ready")
        parent.send_signal(signal.SIGKILL)
        wait_for(place, "saved")
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child)


def test_a_process_that_was_not_asked_to_outlives_its_parent() -> None:
    code = "from coi_jax.common import child_processes; child_processes.end_with_parent(); print('lives')"
    environment = {name: value for name, value in os.environ.items() if name != "COI_JAX_PARENT_PROCESS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "lives\n"


def test_a_parent_that_has_ended_already_is_noticed() -> None:
    code = "from coi_jax.common import child_processes; child_processes.end_with_parent(); print('lives')"
    environment = os.environ | {"COI_JAX_PARENT_PROCESS": str(2**22 + 1)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
