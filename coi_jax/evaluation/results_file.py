"""Reads `results.json`, and notices a changed file by the hash that stands in it. Needs no scorer."""

from typing import Any

import pydantic

from coi_jax.common import files
from coi_jax.common.schema import check_value
from coi_jax.common.seals import unseal
from coi_jax.common.storage import PathLike


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
    """Return the results of a run and test set, without their hash.

    Args:
      path: of `results.json`.

    Raises:
      UserError: it is not as `coi_jax.evaluate` wrote it.
    """
    results = files.read_object(path, "results")
    check_value(_Results, results, "results", path, "it is not as python -m coi_jax.evaluate writes it; run it again")
    return unseal(results, "results", path, "run python -m coi_jax.evaluate again", strict=True)
