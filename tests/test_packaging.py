"""What the project declares to pip: dependencies with reasons and versions, commands, and the files of its wheel."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from coi_jax.common import files
from coi_jax.data.task_specs import evaluation_task, training_tasks
from tests.helpers import syntax_trees
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import DECODER
from tests.helpers.token_caches import small_config, write_caches, write_dataset

PACKAGES = ("coi_jax", "data_pipeline", "configs", "launch")
PYPROJECT = ROOT / "pyproject.toml"
PROJECT: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]

# What may be imported in a folder besides `dependencies`: the extras that the folder needs.
EXTRAS = {
    "coi_jax": ("gguf", "hub", "languages", "wandb", "mlflow"),
    "configs": (),
    "launch": ("launch",),
    "data_pipeline": ("data",),
    "benchmarks": ("data", "dev"),
    "docs": ("docs",),
    "tests": ("data", "launch", "gguf", "hub", "languages", "wandb", "mlflow", "dev"),
}
# Distributions of imported names that the installed metadata does not tell apart.
SHARED_NAMES = {"google", "orbax", "jax_plugins"}
# What a benchmark is set beside, installed in an environment of its own (benchmarks/README.md).
PEERS = {"tunix"}

TENSORFLOW_SIDE = ("tensorflow", "tensorflow_text", "tensorflow_datasets", "seqio", "apache_beam", "flask", "werkzeug")
# A module that is None in sys.modules cannot be imported, as one that is not installed.
BLOCKER = f"import sys\nfor name in {TENSORFLOW_SIDE}:\n    sys.modules[name] = None\n"


def declared(*extras: str) -> dict[str, Requirement]:
    """The requirements of the project and of some of its extras, by normalized name."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(found.name): found for found in map(Requirement, texts)}


def locked() -> dict[str, str]:
    """The versions of constraints.txt, by normalized name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0]]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_direct_dependency_says_why_it_is_there() -> None:
    lines = PYPROJECT.read_text(encoding="utf-8").split("[project.scripts]")[0].splitlines()
    entries = [line for line in lines if re.match(r'    "[\w-]+(\[[\w,]+\])?([<>=~!].*)?",', line)]
    assert len(entries) >= len(PROJECT["dependencies"]) + 20
    assert not [line for line in entries if not re.search(r'",\s+# \w.{4,}', line)]


def test_the_tested_version_of_every_direct_dependency_is_in_its_range() -> None:
    versions = locked()
    every = declared("data", "launch", "docs", "dev")
    every.pop("coi-jax")
    assert not {name: versions.get(name) for name in every if name not in versions}
    assert not [str(found) for name, found in every.items() if not found.specifier.contains(versions[name])]


def test_the_extras_for_accelerators_ask_for_the_same_jax() -> None:
    for extra in ("cuda12", "cuda13", "tpu"):
        assert declared(extra)["jax"].specifier == declared()["jax"].specifier


@pytest.mark.parametrize("folder", EXTRAS)
def test_whatever_is_imported_is_declared(folder: str) -> None:
    distributions = importlib.metadata.packages_distributions()
    known = {*sys.stdlib_module_names, *EXTRAS, *SHARED_NAMES, *PEERS}
    missing = {}
    for path in (ROOT / folder).rglob("*.py"):
        for name in _imported(path) - known:
            owners = {canonicalize_name(owner) for owner in distributions.get(name, [name])}
            if not owners & declared(*EXTRAS[folder]).keys():
                missing[name] = str(path.relative_to(ROOT))
    assert not missing


def _imported(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(syntax_trees.parse(path)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
    return modules


def test_every_command_is_installed() -> None:
    defined = set()
    for path in (path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")):
        if "\ndef command() -> int:" in path.read_text(encoding="utf-8"):
            defined.add(".".join(path.relative_to(ROOT).with_suffix("").parts) + ":command")
    assert defined == set(PROJECT["scripts"].values())


def test_a_command_is_named_as_its_module() -> None:
    for name, target in PROJECT["scripts"].items():
        module = target.split(":")[0].removesuffix(".__main__")
        assert name == f"coi-{module.rpartition('.')[2]}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy: setuptools leaves files beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(source))
    [found] = folder.glob("*.whl")
    return found


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_the_wheel_holds_all_files_of_the_packages_and_no_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == expected
    assert "coi_jax/py.typed" in held


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed project, which hides TensorFlow and what else only the data pipeline needs."""
    folder = tmp_path_factory.mktemp("installed")
    _pip("install", "--no-deps", f"--target={folder}", str(wheel))
    (folder / "sitecustomize.py").write_text(BLOCKER)
    return folder


def run(installed: Path, folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs an installed command in a folder that is no checkout."""
    environment = os.environ | {"PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.run(
        [str(installed / "bin" / command), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_mistake_is_one_line_in_an_installed_command(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "coi-train", "--config=nowhere.py", "--workdir=x")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: config: nowhere.py: no such file")


def test_a_missing_cache_without_the_data_pipeline_says_what_to_install(installed: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {1: 12, 2: 8})
    files.write_json(tmp_path / "config.json", small_config(tmp_path).model_dump(mode="json"))
    done = run(installed, tmp_path, "coi-train", "--config=config.json", "--workdir=run")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: config.data.cache_folder: {tmp_path}/caches: ")
    assert "coi-jax[data]" in done.stderr


@pytest.mark.slow
def test_the_training_side_works_without_tensorflow(installed: Path, tmp_path: Path) -> None:
    """Trains, scores, answers, exports and reports, on token caches that were written elsewhere."""
    write_dataset(tmp_path / "data", {1: 12, 2: 8})
    model = {f"model.{name}": value for name, value in DECODER.items()} | {"model.attention_scale_dim": 4}
    small = {"train.length.count": 2, "data.batch.rows": 4, "evaluation.max_new_tokens": 4, "evaluation.bootstrap": 10}
    config = small_config(tmp_path, **model | small | {"evaluation.tests": ("proc2_test",)})
    write_caches(config, training_tasks(config))
    write_caches(config, [evaluation_task(config, "proc2_test")])
    files.write_json(tmp_path / "config.json", config.model_dump(mode="json"))
    for command in (
        ["coi-train", "--config=config.json", "--workdir=runs/coi12"],
        ["coi-evaluate", "--workdir=runs/coi12"],
        ["coi-generate", "--workdir=runs/coi12", "--instruction=Sort. and then Count.", "--input=b a"],
        ["coi-convert", "--src=runs/coi12", "--out=published"],
        ["coi-tables", "--runs=runs", "--table=4", "--out=report"],
    ):
        done = run(installed, tmp_path, *command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "published" / "model.safetensors").is_file()
    assert "coi12" in (tmp_path / "report" / "table4.md").read_text()
