"""Run folders as training and evaluation write them, with made-up scores."""

from pathlib import Path
from typing import Any

from coi_jax.common import files
from coi_jax.common.seals import write_sealed
from tests.helpers.configs import quickstart_config

RELEASE = "amazon-science/chain-of-instructions"
BASELINE = {"rouge_l": 36.0, "content_rouge_l": 0.0, "content_exact_match": 0.0, "well_formed": 100.0}


def write_run(
    folder: Path,
    overrides: dict[str, Any],
    scores: dict[str, dict[str, float]],
    test_set: str = "t0",
    source: str = RELEASE,
) -> Path:
    """A run of the quickstart's config with `overrides`, scored as `{test set: {score: value}}`."""
    config = quickstart_config({"evaluation.tests": tuple(scores), **overrides})
    files.write_json(folder / "config.json", config.model_dump(mode="json"))
    for name, values in scores.items():
        write_results(
            folder / "eval" / name / "results.json",
            {
                "task": name,
                "arm": config.arm,
                "examples": 100,
                "scores": {key: {"value": v, "low": v - 2, "high": v + 2} for key, v in values.items()},
                "label_only_baseline": BASELINE,
                "steps": [],
                "provenance": {
                    "run": str(folder),
                    "checkpoint": "600",
                    "dataset": "d0",
                    "source": source,
                    "available_examples": 100,
                    "test_set": f"{name}-{test_set}",
                    "predictions": f"p-{folder.name}",
                },
            },
        )
    return folder


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Results with their hash, as evaluation writes them."""
    write_sealed(path, results)


def procedural(best: float, drop: float, seen: int) -> dict[str, dict[str, float]]:
    """Scores on chains of 1 to 6 steps that fall slowly up to `seen` steps, and fast from there."""
    result = {}
    for length in range(1, 7):
        value = max(2.0, best - 4.0 * length - drop * max(0, length - seen))
        exact = max(0.0, value - 12.0 * length)
        result[f"proc{length}_test"] = {
            "rouge_l": min(100.0, value + 8),
            "content_rouge_l": value,
            "content_exact_match": exact,
            "well_formed": 99.0,
        }
    return result
