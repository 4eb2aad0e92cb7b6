"""The shape of the code: how long functions are, what is typed, what configs import, what is left undone.

Each file is read and parsed once; each test names all that offend against its rule.
"""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import syntax_trees
from tests.helpers.paths import ROOT

FOLDERS = ("coi_jax", "data_pipeline", "configs", "launch", "benchmarks", "docs")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LONGEST_FUNCTION = 80
LONGEST_95_PERCENT = 45

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's syntax tree."""
    return tuple(ast.walk(syntax_trees.parse(path)))


def functions() -> Iterator[tuple[str, Function]]:
    """Every function of the project, and where it stands."""
    for path in SOURCES:
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def lines(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    modules: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module or "")
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {module.split(".")[0] for module in modules}


def test_a_config_imports_no_code_of_the_project() -> None:
    allowed = {*sys.stdlib_module_names, "ml_collections", "configs"}
    found = {path.name: imported(path) - allowed for path in (ROOT / "configs").rglob("*.py")}
    assert not {name: modules for name, modules in found.items() if modules}


def test_every_function_is_short() -> None:
    assert not [place for place, function in functions() if lines(function) > LONGEST_FUNCTION]


def test_every_argument_is_typed() -> None:
    untyped = []
    for place, function in functions():
        given = function.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
        untyped += [f"{place}: {arg.arg}" for arg in every if arg.annotation is None and arg.arg not in ("self", "cls")]
    assert not untyped


def test_nearly_all_functions_are_a_screen_or_less() -> None:
    lengths = sorted(lines(function) for _, function in functions())
    assert lengths[int(0.95 * len(lengths))] <= LONGEST_95_PERCENT


def test_no_config_field_has_a_hidden_default_and_nothing_is_left_undone() -> None:
    rule = re.compile(r"\b(config|cfg|c)\.get\(|\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    found = {str(path.relative_to(ROOT)): rule.search(text_of(path)) for path in SOURCES}
    assert not {name: match[0] for name, match in found.items() if match}


def test_no_test_is_skipped() -> None:
    banned = {"skip", "skipif", "xfail", "importorskip"}
    found = {
        str(path.relative_to(ROOT)): {node.attr for node in nodes(path) if isinstance(node, ast.Attribute)} & banned
        for path in TESTS
    }
    assert not {name: words for name, words in found.items() if words}


# Where JSON is parsed, or text cut into lines, by other means than `coi_jax.common.json_reader` and `files`, and why.
OTHER_READERS = {
    "coi_jax/common/json_reader.py": "the strict reader itself",
    "coi_jax/data/prompts.py": "conversations that the same module laid out",
    "coi_jax/llm/batch_lines.py": "replies, of which each that was paid for is kept, whatever it holds",
    "coi_jax/llm/reply_bodies.py": "replies, of which each that was paid for is kept, whatever it holds",
    "coi_jax/llm/reply_store.py": "replies as they came, with halves of surrogate pairs",
    "coi_jax/llm/structured.py": "the object in a reply: pydantic's own parser of JSON has limits too",
    "coi_jax/parallel/processes.py": "messages between the processes of one run, and the first line of an exception",
    "coi_jax/runs/damage.py": "the first line of an exception",
    "coi_jax/runs/read_back.py": "the first line of an exception",
    "coi_jax/tokenizers/template_worker.py": "requests of the process that started it",
    "data_pipeline/build/stages/pairing.py": "keys that the same stage made",
    "data_pipeline/tasks/seqio_tasks.py": "chains that were checked when the dataset was read",
    "data_pipeline/tasks/tfds_builder.py": "chains that were checked when the dataset was read",
    "launch/preflight/hlo.py": "a program that the compiler printed",
}
LENIENT = {
    "loads",
    "load",
    "splitlines",
    "raw_decode",
    "JSONDecoder",
    "model_validate_json",
    "validate_json",
    "get_json",
}


def is_lenient(node: ast.AST) -> bool:
    """Whether a part of a program is a call that reads JSON or lines without limits."""
    if not isinstance(node, ast.Attribute) or node.attr not in LENIENT:
        return False
    owner = node.value.id if isinstance(node.value, ast.Name) else ""
    return owner == "json" or node.attr not in ("load", "loads")


def test_whatever_others_wrote_is_read_by_the_strict_reader() -> None:
    packages = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("coi_jax", "data_pipeline", "launch")]
    found = {path.relative_to(ROOT).as_posix() for path in packages if any(map(is_lenient, nodes(path)))}
    assert found == OTHER_READERS.keys()
    imported_names = {
        path.relative_to(ROOT).as_posix()
        for path in packages
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module == "json"
    }
    assert not imported_names
