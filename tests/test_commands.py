"""The help of every command: it fits a screen, and nothing heavy is imported for it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.generate.command_lines import COMMANDS
from tests.helpers.configs import quickstart_config
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


def _run_folder(path: Path, *steps: int) -> Path:
    """A run whose checkpoints are there by name: what is asked of them before anything is loaded."""
    path.mkdir()
    (path / "config.json").write_text(quickstart_config().model_dump_json())
    for step in steps:
        (path / "checkpoints" / str(step)).mkdir(parents=True)
    return path


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    "line",
    [
        "coi_jax.train --config=configs/quickstart.py --workdir=docs",
        "coi_jax.train --config=configs/quickstart.py --workdir=new --config.arm=coi9",
        "coi_jax.evaluate --workdir=docs",
        "coi_jax.generate --workdir=docs --instruction=a",
        "coi_jax.serve --workdir=docs",
        "coi_jax.serve --workdir=none",
        "coi_jax.serve --weights=none",
        "coi_jax.serve --weights=docs",
        "coi_jax.serve --weights=docs --weights=none/docs",
        "coi_jax.serve --workdir={run} --port={taken}",
        "coi_jax.serve --workdir={run} --workdir=none/run",
        "coi_jax.serve --workdir={untrained}",
    ],
)
def test_a_mistake_is_found_before_anything_heavy_is_imported(line: str, tmp_path: Path, taken_port: int) -> None:
    line = line.format(run=_run_folder(tmp_path / "run", 1), untrained=_run_folder(tmp_path / "new"), taken=taken_port)
    command = [sys.executable, "-c", MISTAKE, *line.replace(" ", f" {','.join(HEAVY)} ", 1).split()]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout == "2 []\n"
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
