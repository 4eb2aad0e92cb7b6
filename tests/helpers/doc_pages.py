"""The documentation's pages as tests read them: their fenced blocks, and the commands in them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.helpers.paths import ROOT

# What a command gets besides, so that it takes seconds. The last of two equal flags counts.
SMALL = {
    "data_pipeline.procedural": [
        "--train_count=40",
        "--validation_count=4",
        "--rephrased_count=4",
        "--test_count=6",
    ],
    "data_pipeline.cache": ["--config.vocabulary.size=400"],
    "data_pipeline.build": ["--config.joins.lengths=()", "--config.variants=()"],
    "coi_jax.train": [
        "--config.train.length.count=3",
        "--config.train.checkpoint_every=2",
        "--config.vocabulary.size=400",
        "--config.model.layers=1",
        "--config.model.model_dim=32",
        "--config.model.head_dim=8",
        "--config.model.attention_scale_dim=8",
        "--config.model.mlp_dim=32",
        "--config.data.batch.rows=4",
        "--config.model.scan_unroll=1",
    ],
    "launch.sweep": [
        "--config.evaluation.tests=('proc1_test',)",
        "--config.evaluation.max_new_tokens=8",
        "--config.evaluation.bootstrap=10",
    ],
    "coi_jax.evaluate": ["--config.evaluation.max_new_tokens=8", "--config.evaluation.bootstrap=10"],
}
SMALL["launch.sweep"] += SMALL["coi_jax.train"]


def blocks(path: Path, info: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page whose info string matches `info`: (info string, content)."""
    return re.findall(rf"^```({info})\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def lines(block: str) -> list[str]:
    """The lines of a block of commands, continued ones joined."""
    return [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def commands(path: Path, info: str) -> list[str]:
    """The `python -m` and `make` commands in the blocks of a page; comments are dropped."""
    found = [line for _, block in blocks(path, info) for line in lines(block)]
    return [shlex.join(shlex.split(line, comments=True)) for line in found if line.startswith(("python -m", "make"))]


def small(command: str) -> list[str]:
    """The words after `python` of a command, with the flags that make it small."""
    words = shlex.split(command, comments=True)
    assert words[0] == "python", command
    flags = SMALL.get(words[2], []) if words[1] == "-m" else []
    if any(word.startswith("--config.weights.folder=") for word in words):  # the weights bring their vocabulary
        flags = [flag for flag in flags if not flag.startswith("--config.vocabulary.")]
    if "--list" in words:  # of operations: there is no dataset to be small
        flags = []
    smaller = tuple(f"{flag.partition('=')[0]}=" for flag in flags)
    return [*(word for word in words[1:] if not word.startswith(smaller)), *flags]


def run(arguments: list[str], folder: Path, source: Path = ROOT) -> str:
    """What Python prints; `source` is the tree whose modules it imports."""
    environment = {**os.environ, "PYTHONPATH": str(source), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "COLUMNS": "120"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout
