"""The hash that stands in `results.json`, by which readers notice a changed file. Needs no scorer."""

from collections.abc import Mapping
from typing import Any

import pydantic

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.schema import check_value
from coi_jax.common.storage import PathLike

DIGEST = "sha256"  # of all else in results.json


def results_digest(results: Mapping[str, Any]) -> str:
    """Return the hash of results that stands among them."""
    return files.digest({name: value for name, value in results.items() if name != DIGEST})


class _Estimate(pydantic.BaseModel):
    value: float
    low: float
    high: float


class _Provenance(pydantic.BaseModel):
    predictions: str


class _Results(pydantic.BaseModel):
    """What all readers of results.json need of it."""

    examples: int
    scores: dict[str, _Estimate]
    label_only_baseline: dict[str, float]
    provenance: _Provenance


def read_results(path: PathLike) -> dict[str, Any]:
    """Return the results of a run and test set.

    Args:
      path: of `results.json`.

    Raises:
      UserError: it is not as `coi_jax.evaluate` wrote it.
    """
    results = files.read_object(path, "results")
    check_value(_Results, results, "results", path, "it is not as python -m coi_jax.evaluate writes it; run it again")
    if results.get(DIGEST) != results_digest(results):
        hint = "was changed after python -m coi_jax.evaluate wrote it, by its hash; run it again"
        raise UserError("results", path, hint)
    return results
