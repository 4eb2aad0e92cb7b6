"""Finds the JSON object that a reply gives, also behind thoughts, within prose or in a fenced block."""

import re
from collections.abc import Iterator

from coi_jax.common.json_reader import parse_value

_THOUGHTS_END = re.compile(r"</think(?:ing)?>")
_THOUGHTS_BEGIN = re.compile(r"<think(?:ing)?>")
MOST_TRIES = 50  # opening braces that are tried, so that no text takes long


def without_thoughts(text: str) -> str:
    """Return the part of a reply behind its thoughts, which `</think>` ends; nothing where they do not end."""
    behind = _THOUGHTS_END.split(text)[-1]
    return "" if _THOUGHTS_BEGIN.search(behind) else behind


def object_texts(text: str) -> Iterator[str]:
    """Yield the JSON objects of a text, each as it is written.

    Example: `Here it is: {"output": "x"}.` gives `{"output": "x"}`.
    """
    start = text.find("{")
    for _ in range(MOST_TRIES):
        if start < 0:
            return
        end = start + 1
        try:
            _, end = parse_value(text, start, allow_surrogates=True)
            yield text[start:end]
        except ValueError:
            pass
        start = text.find("{", end)
