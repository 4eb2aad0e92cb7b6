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


FULL = """
import sys
from coi_jax.common import cli
from data_pipeline.build.__main__ import main
from tests.helpers.file_limits import largest_file
with largest_file(2000):
    sys.exit(cli.run(lambda: main(sys.argv[1:])))
"""


def test_a_disk_that_gets_full_in_a_worker_is_one_line(tmp_path: Path) -> None:
    """Beam logs too that it cannot close the worker, whose file cannot be closed."""
    command = [sys.executable, "-c", FULL, f"--out={tmp_path}/built", "--source=procedural:lists"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 2, found.stderr
    *progress, line = found.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/built.work/stages/"), found.stderr
    assert "File too large" in line
    assert all(each.startswith("seeds: ") for each in progress), found.stderr
