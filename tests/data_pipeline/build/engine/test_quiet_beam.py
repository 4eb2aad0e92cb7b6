"""Holds what the project relies on of Beam's internals."""

import subprocess
import sys
from pathlib import Path

from tests.helpers.paths import ROOT


def test_a_users_mistake_in_a_worker_is_one_line(tmp_path: Path) -> None:
    """Beam logs the traceback of each error of a worker, unless its logger is silenced."""
    command = [sys.executable, "-m", "data_pipeline.build", f"--out={tmp_path}/built", "--source=procedural:nope"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stdout == ""
    *progress, line = found.stderr.splitlines()
    assert line.startswith("error: seeds.sources: nope: unknown")
    assert all(each.startswith("seeds: ") for each in progress)  # on a slow machine
