"""The hash that stands in `results.json`, by which readers notice a changed file. Needs no scorer."""

from collections.abc import Mapping
from typing import Any

from coi_jax.common import files

DIGEST = "sha256"  # of all else in results.json


def results_digest(results: Mapping[str, Any]) -> str:
    """Return the hash of results that stands among them."""
    return files.digest({name: value for name, value in results.items() if name != DIGEST})
