"""Counts and figures themselves."""

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers.paths import ROOT

TEST = """
def test_counts(count, seed, measured):
    measured(kills=count("kills"), seed=seed)
"""


def test_counts_are_options_and_figures_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/soak/conftest.py").read_text())
    (tmp_path / "test_one.py").write_text(TEST)
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps([{"test": "test_other"}, {"test": "test_counts"}]))
    options = ["--kills=7", "--soak_seed=3", f"--figures={figures}", "-p", "tests.helpers.soak_options"]
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    done = subprocess.run([*command, *options, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    other, ours = json.loads(figures.read_text())
    assert other == {"test": "test_other"}
    assert (ours["test"], ours["kills"], ours["seed"], ours["outcome"]) == ("test_counts", 7, 3, "passed")
