import importlib
import sys

import pytest

from coi_jax.common.imports import not_importable


def test_a_package_is_not_importable_within_the_context_alone() -> None:
    assert "this" not in sys.modules
    with not_importable("this"), pytest.raises(ImportError):
        importlib.import_module("this")
    assert "this" not in sys.modules


def test_a_package_that_is_imported_already_stays() -> None:
    with not_importable("json"):
        assert importlib.import_module("json") is sys.modules["json"]
    assert sys.modules["json"]
