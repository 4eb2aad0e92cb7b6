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


# Runs a command, and prints its status and the heavy packages that were imported.
MISTAKE = """
import importlib, sys
from coi_jax.common import cli
module, heavy, *arguments = sys.argv[1:]
status = cli.run(lambda: importlib.import_module(module).main(arguments))
print(status, sorted(set(heavy.split(",")) & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "line",
    [
        "coi_jax.train --config=configs/quickstart.py --workdir=docs",
        "coi_jax.train --config=configs/quickstart.py --workdir=new --config.arm=coi9",
        "coi_jax.evaluate --workdir=docs",
        "coi_jax.generate --workdir=docs --instruction=a",
    ],
)
def test_a_mistake_is_found_before_anything_heavy_is_imported(line: str) -> None:
    command = [sys.executable, "-c", MISTAKE, *line.replace(" ", f" {','.join(HEAVY)} ", 1).split()]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout == "2 []\n"
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
