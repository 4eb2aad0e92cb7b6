"""Pairs of answers to the same chains, from the predictions of two runs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path
from coi_jax.evaluation import predictions
from coi_jax.evaluation.predictions import PREDICTIONS, RESULTS

KEYS = ("id", "instruction", "input", "prediction", "target")


@dataclass(frozen=True)
class AnswerPair:
    """A chain with the answers of run A and run B.

    Attributes:
      id: of the chain.
      instruction: of the whole chain.
      input: of the chain; may be empty.
      reference: the right answer, with its labels; may be empty.
      a: the answer of run A.
      b: the answer of run B.
    """

    id: str
    instruction: str
    input: str
    reference: str
    a: str
    b: str


def read_pairs(run_a: PathLike, run_b: PathLike, test_set: str, most: int | None = None) -> list[AnswerPair]:
    """Return the chains that both runs have answered, in an order that follows from their ids alone.

    Args:
      run_a: the folder of run A.
      run_b: the folder of run B.
      test_set: its name.
      most: takes only the first so many; None takes all.

    Raises:
      UserError: a run has no predictions of the test set or such of an earlier version, they are of different chains
        under the same ids, or there is no chain that both have answered.
    """
    rows_a, rows_b = (_read(run, test_set) for run in (run_a, run_b))
    shared = sorted(rows_a.keys() & rows_b.keys(), key=lambda id: hashlib.sha256(id.encode()).digest())
    if not shared:
        raise UserError("test set", test_set, f"{run_a} and {run_b} have answered no chain in common")
    return [_pair(rows_a[id], rows_b[id]) for id in shared[:most]]


def _read(run: PathLike, test_set: str) -> dict[str, dict[str, Any]]:
    path = as_path(run) / "eval" / test_set / PREDICTIONS
    if not path.exists():
        raise UserError("predictions", path, "no such file; run python -m coi_jax.evaluate first")
    rows = {}
    for place, row in files.read_placed_jsonl(path, "predictions"):
        if missing := [key for key in KEYS if not isinstance(row.get(key), str)]:
            raise UserError("predictions", place, f"has no text {missing[0]!r}; run python -m coi_jax.evaluate again")
        if row["id"] in rows:
            raise UserError("predictions", place, "answers an example for the second time; remove one of the lines")
        rows[row["id"]] = row
    predictions.check_scored(path.parent, list(rows.values()), path.parent / RESULTS)
    return rows


def _pair(a: dict[str, Any], b: dict[str, Any]) -> AnswerPair:
    if different := [key for key in ("instruction", "input", "target") if a[key] != b[key]]:
        hint = f"has another {different[0]} in the other run: evaluate both on the same test set"
        raise UserError("chain", a["id"], hint)
    return AnswerPair(a["id"], a["instruction"], a["input"], a["target"], a["prediction"], b["prediction"])


def is_same_answer(pair: AnswerPair) -> bool:
    """Return whether both runs gave the same answer, which is a tie that nobody need be asked about."""
    return pair.a.strip() == pair.b.strip()


def asked(pairs: Sequence[AnswerPair]) -> list[AnswerPair]:
    """Return the pairs whose answers differ."""
    return [pair for pair in pairs if not is_same_answer(pair)]
