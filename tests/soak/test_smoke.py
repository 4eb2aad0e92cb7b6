"""`make quickstart SMOKE=1`: the quickstart small, in folders of its own. Installing and running it takes minutes."""

import shlex
import subprocess

import pytest

from coi_jax.common.cli import split_overrides
from coi_jax.config.run import load_config
from tests.helpers.paths import QUICKSTART, ROOT


def commands(*options: str) -> dict[str, list[str]]:
    """The arguments of the commands that make would run, by module."""
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", "quickstart", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    text = done.stdout.replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.split("\n") if line.startswith(".venv/bin/python -m ")]
    return {words[2]: words[3:] for words in lines}


def test_it_has_its_own_folders_and_few_steps() -> None:
    small, usual = commands("SMOKE=1"), commands()
    assert small.keys() == usual.keys() >= {"data_pipeline.procedural", "launch.sweep", "coi_jax.tables"}
    assert not [word for words in small.values() for word in words if "quickstart" in word and ".py" not in word]
    _, none = split_overrides(usual["launch.sweep"])
    assert none == {}
    _, overrides = split_overrides(small["launch.sweep"])
    config, other = load_config(QUICKSTART, overrides), load_config(QUICKSTART, {})
    assert config.train.length.count <= other.train.length.count / 20
    assert config.data.folder == small["data_pipeline.procedural"][1] == "data/smoke"


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_it_takes_every_python_that_the_project_declares(version: tuple[int, int]) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"python{version[0]}.{version[1]}" in text
    assert str(version) in text
