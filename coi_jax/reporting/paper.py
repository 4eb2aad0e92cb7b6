"""The paper's own numbers, which tables show beside this project's."""

import functools
from pathlib import Path
from typing import Any

from coi_jax.common import files

METRIC = "rouge_l"  # the score that the paper's tables have

_FILE = Path(__file__).with_name("paper_results.json")


@functools.cache
def results() -> dict[str, Any]:
    """Return the content of `paper_results.json`: the numbers and their source."""
    return files.read_object(_FILE)


def models() -> dict[str, str]:
    """Return the paper's models: the key of a column, and its name."""
    names: dict[str, str] = results()["models"]
    return names


def has(test_set: str, source: str) -> bool:
    """Return whether the paper's table 4 has the test set, with the chains of a dataset of this source.

    Args:
      test_set: its name.
      source: what the manifest of the dataset says of where its chains come from.
    """
    return test_set in results()["table4"] and results()["sources"].get(test_set, source) == source


def arms() -> list[str]:
    """Return the arms of the paper's table 4."""
    models = [by_arm for by_model in results()["table4"].values() for by_arm in by_model.values()]
    return list(dict.fromkeys(arm for by_arm in models for arm in by_arm))


def rouge_l(test_set: str, model: str, arm: str) -> float | None:
    """Return table 4's ROUGE-L x 100; None where the paper has no such cell.

    Args:
      test_set: its name.
      model: a key of `models`.
      arm: its name.
    """
    score: float | None = results()["table4"].get(test_set, {}).get(model, {}).get(arm)
    return score
