"""Syntax trees of source files."""

import ast
import gc
from pathlib import Path


def parse(path: Path) -> ast.Module:
    """Return the tree of a file.

    Nothing is collected meanwhile: a finalizer that runs while CPython 3.11 builds a tree makes it fail with "AST
    constructor recursion depth mismatch" (python/cpython#106905).
    """
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()
