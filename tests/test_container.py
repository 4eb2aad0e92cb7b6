"""The training image: its file passes a linter, and takes what the project declares. No image is built here."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.helpers.paths import ROOT

DOCKERFILE = ROOT / "Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments, without comments, continued lines joined."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line]


def test_the_linter_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_each_variant_installs_extras_that_the_project_has() -> None:
    (install,) = [words for name, words in instructions() if name == "RUN" and "--constraint" in words]
    found = re.search(r'"\.\[\$\{ACCELERATOR\},([\w,]+)\]"', install)
    assert found is not None
    variants = re.findall(r"--build-arg ACCELERATOR=(\w+)", TEXT)
    assert variants == ["tpu", "cuda12"]
    assert ("ARG", "ACCELERATOR=tpu") in instructions()
    assert {*variants, *found[1].split(",")} <= EXTRAS.keys()


def test_the_layer_of_packages_installs_from_the_files_that_it_copies(tmp_path: Path) -> None:
    """Before the modules are there: `pip` reads the metadata that setuptools makes of those files alone."""
    first = next(words.split()[:-1] for name, words in instructions() if name == "COPY")
    for name in first:
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
    command += ["--no-deps", "--no-build-isolation", "--constraint", "constraints.txt", ".[tpu,gcs,data]"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_the_image_has_the_project_and_its_history_and_nothing_that_git_ignores() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")}
    assert not ignored & {"coi_jax", "configs", "data_pipeline", "launch", ".git", "pyproject.toml", "constraints.txt"}
    assert {"data", "runs", "checkpoints", ".venv", "site", "build", "dist"} <= ignored
