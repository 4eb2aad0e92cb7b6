"""Private interfaces of libraries: which are used, where, and what to do when an upgrade changes one."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import orbax.checkpoint as ocp
import pytest
from jax._src.cudnn import fused_attention_stablehlo

import coi_jax
import launch
from tests.helpers import syntax_trees
from tests.helpers.paths import ROOT

FOLDERS = ("coi_jax", "data_pipeline", "configs", "launch", "benchmarks")
PUBLIC = {
    "_replace",
    "_asdict",
    "_fields",
    "_make",
    "_exit",
}  # of named tuples and of os, documented in spite of their names

# Each is used in one module alone. A test below says what depends on it.
IMPORTS = {("coi_jax/models/kernels/cudnn.py", "jax._src.cudnn.fused_attention_stablehlo")}
OVERRIDES = {("coi_jax.runs.streamed_checkpoint", "_Handler", "_open_and_write")}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def private_uses(path: Path) -> Iterator[str]:
    """Private modules that a file imports, and private attributes of objects that it does not define itself."""
    tree = syntax_trees.parse(path)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_of_self(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(map(is_private, (node.module or "").split("."))):
            yield str(node.module)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from (alias.name for alias in node.names if any(map(is_private, alias.name.split("."))))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield node.attr


def is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def private_overrides(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """The private methods of libraries' classes that classes of a module replace."""
    for name, value in vars(module).items():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            theirs = [base for base in value.__mro__ if base.__module__.split(".")[0] not in FOLDERS]
            for method, function in vars(value).items():
                if inspect.isfunction(function) and is_private(method) and any(hasattr(b, method) for b in theirs):
                    yield module.__name__, name, method


def test_private_modules_and_attributes_are_used_where_they_are_listed_alone() -> None:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert {(str(path.relative_to(ROOT)), name) for path in paths for name in private_uses(path)} == IMPORTS


def test_private_methods_of_libraries_are_overridden_where_they_are_listed_alone() -> None:
    names = [
        found.name
        for package in (coi_jax, launch)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not found.name.endswith("__main__")
    ]
    assert {override for name in names for override in private_overrides(importlib.import_module(name))} == OVERRIDES


def test_orbax_writes_each_array_through_the_method_that_streaming_overrides() -> None:
    """`runs/streamed_checkpoint.py` writes arrays layer by layer there: `coi_jax.convert` would hold models in memory.

    Without it, subclass `ocp.type_handlers.TypeHandler` and write with tensorstore in `serialize`.
    """
    method = ocp.type_handlers.NumpyHandler._open_and_write
    assert list(inspect.signature(method).parameters) == ["self", "value", "tspec", "ts_context"]
    assert inspect.iscoroutinefunction(method)
    assert "deepcopy_host_arrays" in inspect.signature(ocp.type_handlers.NumpyHandler.__init__).parameters


@pytest.mark.parametrize(
    "name", ["q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets", "scale", "mask_type", "sliding_window_length"]
)
def test_cudnn_attention_takes_the_arguments_of_packed_rows(name: str) -> None:
    """`models/kernels/cudnn.py` calls this function: `jax.nn.dot_product_attention` takes no offsets.

    Without it, packed rows on NVIDIA GPUs need `config.model.attention = "xla"`.
    """
    assert name in inspect.signature(fused_attention_stablehlo.dot_product_attention).parameters
    assert {"CAUSAL", "PADDING_CAUSAL"} <= set(fused_attention_stablehlo.MaskType.__members__)
