"""The paper's own numbers, to stand beside this project's."""

import functools
import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("paper_results.json")


@functools.cache
def results() -> dict[str, Any]:
    """What `paper_results.json` holds, with the source of its numbers."""
    return json.loads(_FILE.read_text(encoding="utf-8"))


def models() -> dict[str, str]:
    """The paper's models: the key of a column, and its name."""
    return results()["models"]


def has(test_set: str) -> bool:
    """Whether the paper's table 4 has the test set; it has no procedural ones."""
    return test_set in results()["table4"]


def rouge_l(test_set: str, model: str, arm: str) -> float:
    """Table 4's ROUGE-L x 100 of an arm on a test set that `has`."""
    return results()["table4"][test_set][model][arm]
