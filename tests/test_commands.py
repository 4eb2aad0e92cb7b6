"""The help of every command: it fits a screen, and nothing heavy is imported for it."""

import subprocess
import sys

import pytest

from docs.generate.command_lines import COMMANDS
from tests.helpers.paths import ROOT

HEAVY = {"apache_beam", "jax", "matplotlib", "nltk", "orbax", "seqio", "tensorflow", "torch"}

# Prints the help as the command does, then a line with the heavy packages that were imported.
HELP = """
import runpy, sys
module, *heavy = sys.argv[1:]
sys.argv[1:] = ["--help"]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code
print(sorted(set(heavy) & set(sys.modules)))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy_and_fits_a_screen(command: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", HELP, command, *HEAVY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *help_lines, imported = process.stdout.splitlines()
    assert imported == "[]"
    assert help_lines[0].startswith("usage: python -m ") or help_lines[0].startswith("usage: coi-")
    assert len(help_lines) <= 50
