"""The shape of the code: which folder may import which, how long functions are, what is typed, what is pinned."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

FOLDERS = ("coi_jax", "data_pipeline", "configs", "launch", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LONGEST_FUNCTION = 80
LONGEST_95_PERCENT = 45

Function = ast.FunctionDef | ast.AsyncFunctionDef

source_file = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda path: path.name)
def test_a_config_imports_no_code_of_the_project(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        allowed = {*sys.stdlib_module_names, "ml_collections", "configs"}
        assert {(module or "").split(".")[0] for module in modules} <= allowed


@source_file
def test_every_function_is_short_and_typed(path: Path) -> None:
    for function in functions(path):
        place = f"{path.name}:{function.lineno} {function.name}"
        assert lines(function) <= LONGEST_FUNCTION, place
        given = function.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
        untyped = [arg.arg for arg in every if arg.annotation is None and arg.arg not in ("self", "cls")]
        assert not untyped, f"{place}: {untyped}"


def test_nearly_all_functions_are_a_screen_or_less() -> None:
    lengths = sorted(lines(function) for path in SOURCES for function in functions(path))
    assert lengths[int(0.95 * len(lengths))] <= LONGEST_95_PERCENT


@source_file
def test_no_config_field_has_a_hidden_default_and_nothing_is_left_undone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(config|cfg|c)\.get\(", text)
    assert not re.search(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError", text)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_is_skipped(path: Path) -> None:
    names = {
        node.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)
    }
    assert not names & {"skip", "skipif", "xfail", "importorskip"}


def pins(name: str) -> dict[str, str]:
    """The packages that a requirements file pins, by their normalised names."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        requirement = line.split("#")[0].strip()
        if requirement and not requirement.startswith("-"):
            package, version = requirement.split("==")
            found[package.lower().replace("_", "-")] = version
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_to_the_locked_version_and_says_why(name: str) -> None:
    locked = pins("constraints.txt")
    for package, version in pins(name).items():
        assert locked[package] == version
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        assert "==" not in line or "# " in line
