"""The commands of the README.

All are known to their parsers. Those in blocks marked `bash run` are run in order in an empty folder, as they stand
there but for flags that make them small.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.xdist_group("readme")  # its fixtures take long: one worker makes them

README = ROOT / "README.md"

# What a command gets besides, so that it takes seconds. The last of two equal flags counts.
SMALL = {
    "data_pipeline.procedural": [
        "--train_count",
        "40",
        "--validation_count",
        "4",
        "--rephrased_count",
        "4",
        "--test_count",
        "6",
    ],
    "data_pipeline.build": ["--config.joins.lengths=()", "--config.variants=()"],
    "coi_jax.train": [
        "--config.train.length.count=3",
        "--config.train.checkpoint_every=2",
        "--config.vocabulary.size=400",
        "--config.model.layers=1",
        "--config.model.width=32",
        "--config.model.head_dim=8",
        "--config.model.attention_scale_dim=8",
        "--config.model.mlp_dim=32",
        "--config.data.batch.rows=4",
        "--config.model.scan_unroll=1",
    ],
    "coi_jax.evaluate": ["--limit", "2", "--config.evaluation.max_new_tokens=8", "--config.evaluation.bootstrap=10"],
}


def commands(info: str) -> list[str]:
    """The `python -m` commands of the fenced blocks whose info string matches `info`; comments are dropped."""
    blocks = re.findall(rf"^```({info})\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for _, block in blocks for line in block.splitlines()]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line.startswith(("python -m", "make"))]


def module_of(command: str) -> str:
    return shlex.split(command)[2]


def run(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "COLUMNS": "120"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_readme_has_the_commands() -> None:
    assert "make quickstart" in commands("bash")
    assert len(commands("bash run")) >= 5


MODULES = sorted({module_of(command) for command in commands("bash(?: run)?") if not command.startswith("make")})


@pytest.mark.parametrize("module", MODULES)
def test_every_flag_is_one_that_the_help_names(module: str, tmp_path: Path) -> None:
    text = run(["-m", module, "--help"], ROOT)
    assert len(text.splitlines()) <= 50, "help fits a screen"
    for command in commands("bash(?: run)?"):
        if command.startswith("make") or module_of(command) != module:
            continue
        flags = [word.split("=")[0] for word in shlex.split(command) if word.startswith("--")]
        unknown = [flag for flag in flags if not flag.startswith("--config.") and not re.search(rf"{flag}\b", text)]
        assert not unknown, command


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in commands("bash"):
        if command.startswith("make"):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)


def test_named_files_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:configs|docs|launch|coi_jax|data_pipeline)/[\w/]+\.\w+", text):
        assert (ROOT / path).is_file(), path
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (ROOT / path).is_file(), path
    assert "{{" not in text


def test_commands_run_in_order(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for command in commands("bash run"):
        run([*shlex.split(command)[1:], *SMALL.get(module_of(command), [])], tmp_path)
    assert (tmp_path / "report" / "figure6.png").is_file()
