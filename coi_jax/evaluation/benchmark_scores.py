"""Scores of the test sets of other benchmarks, computed from the details of their rows.

An answer to any other chain has none of them.
"""

import itertools
import re
import string
from typing import Any

from coi_jax.common.errors import UserError, shorten
from coi_jax.evaluation.instruction_checks import argument_fault, followed
from coi_jax.evaluation.scores import Answer, Score

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
TEXT_MODIFICATION, MATHEMATICS = "text_modification", "math"  # tasks of SIFo


def _followed(answer: Answer, *, loose: bool = False) -> list[bool]:
    """Return whether an answer follows each verifiable instruction of its row; none for rows that have none."""
    ids, arguments = (answer.details.get(name, []) for name in ("instruction_id_list", "kwargs"))
    _check_instructions(ids, arguments)
    return followed(answer.prediction, ids, arguments, loose=loose)


def _check_instructions(ids: Any, arguments: Any) -> None:
    """Raise UserError where the details of a row, which people may have written, name what cannot be verified."""
    are_lists = isinstance(ids, list) and isinstance(arguments, list) and len(ids) == len(arguments)
    if not are_lists or not all(isinstance(given, dict) for given in arguments):
        hint = "instruction_id_list and kwargs must be lists of equal lengths, of names and of objects"
        raise UserError("details", shorten(ids, 100), f"{hint}; correct the row of the test set")
    if fault := next(filter(None, map(argument_fault, ids, arguments)), ""):
        raise UserError("details", shorten(ids, 100), f"{fault}; correct the row of the test set")


def all_instructions_followed(answer: Answer) -> float | None:
    """Return 1 if all verifiable instructions are followed: strict accuracy of prompts, as IFEval has it."""
    found = _followed(answer)
    return float(all(found)) if found else None


def all_instructions_followed_loosely(answer: Answer) -> float | None:
    """Return 1 if all are followed without regard to first and last lines and asterisks: loose accuracy of prompts."""
    found = _followed(answer, loose=True)
    return float(all(found)) if found else None


def share_of_instructions_followed(answer: Answer) -> float | None:
    """Return the share of the verifiable instructions that are followed."""
    found = _followed(answer)
    return sum(found) / len(found) if found else None


def _sifo_matches(answer: Answer) -> list[bool]:
    """Return whether the output of each step holds its reference, as SIFo compares them (Chen et al., 2024)."""
    task = answer.details.get("sifo_task")
    if task is None:
        return []
    return [
        content is not None and _normalize_sifo(reference, task) in _normalize_sifo(content, task)
        for reference, content in answer.steps.values()
    ]


def _normalize_sifo(text: str, task: str) -> str:
    """Return a text as SIFo compares those of a task: numbers without commas, others without punctuation."""
    lower = text.lower()
    if task == MATHEMATICS:
        return lower.replace(",", "")
    words = lower.translate(_WITHOUT_PUNCTUATION)
    if task != TEXT_MODIFICATION:
        words = re.sub(r"\b(a|an|the)\b", " ", words)
    return " ".join(words.split())


def sifo_sample_accuracy(answer: Answer) -> float | None:
    """Return 1 if the output of the last step holds its reference."""
    found = _sifo_matches(answer)
    return float(found[-1]) if found else None


def sifo_instruction_accuracy(answer: Answer) -> float | None:
    """Return the share of the steps whose output holds the reference."""
    found = _sifo_matches(answer)
    return sum(found) / len(found) if found else None


def sifo_depth(answer: Answer) -> float | None:
    """Return the share of the steps before the first whose output does not hold the reference."""
    found = _sifo_matches(answer)
    return len(list(itertools.takewhile(bool, found))) / len(found) if found else None


BENCHMARK_SCORES: dict[str, Score] = {
    score.key: score
    for score in (
        Score(
            key="all_instructions_followed",
            title="All verifiable instructions followed, % (IFEval, prompts, strict)",
            function=all_instructions_followed,
            column="all verifiable\nfollowed",
        ),
        Score(
            key="all_instructions_followed_loosely",
            title="All verifiable instructions followed, % (IFEval, prompts, loose)",
            function=all_instructions_followed_loosely,
        ),
        Score(
            key="instructions_followed",
            title="Verifiable instructions followed, mean of the prompts' shares, %",
            function=share_of_instructions_followed,
            column="verifiable\nfollowed",
        ),
        Score(
            key="sifo_sample_accuracy",
            title="Last outputs that hold their reference, % (SIFo)",
            function=sifo_sample_accuracy,
            column="SIFo\nsamples",
        ),
        Score(
            key="sifo_instruction_accuracy",
            title="Outputs that hold their reference, mean of the chains' shares, % (SIFo)",
            function=sifo_instruction_accuracy,
            column="SIFo\ninstructions",
        ),
        Score(
            key="sifo_depth",
            title="Steps before the first wrong one, mean of the chains' shares, % (SIFo)",
            function=sifo_depth,
        ),
    )
}
