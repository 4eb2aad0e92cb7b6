"""A blind comparison by people: a CSV file that hides who wrote which answer, its key, and the choices read back."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.storage import PathLike, as_path
from coi_jax.judging.answer_pairs import AnswerPair
from coi_jax.judging.ballot_table import COLUMNS, FOREIGN, read_rows, write_rows
from coi_jax.judging.verdicts import Choice

CHOICES = ("left", "right", "tie")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins to compute


def write_ballots(pairs: Sequence[AnswerPair], path: PathLike, seed: int, runs: Mapping[str, str]) -> str:
    """Write a table with an empty column `choice`, and beside it the key that says which side is which run's.

    Args:
      pairs: the answers to compare.
      path: of the CSV file.
      seed: of the order of pairs and of the sides.
      runs: the folders of run "a" and run "b" and the name of the test set, for the key.

    Returns:
      The path of the key.

    Raises:
      UserError: there is another file, or a table with choices already.
    """
    place = as_path(path, "--ballots")
    if place.exists() and any(row["choice"] for row in read_ballots(place)):
        raise UserError("--ballots", path, "has choices already; name another file")
    shuffled = list(pairs)
    random.Random(seed).shuffle(shuffled)
    draw = random.Random(f"sides {seed}")
    sides = {pair.id: draw.choice(["a", "b"]) for pair in shuffled}
    write_rows(place, [_ballot(number, pair, sides[pair.id]) for number, pair in enumerate(shuffled, 1)])
    key = key_path(path)
    files.write_json(key, {"runs": dict(runs), "left": sides}, "--ballots")
    return key


def _ballot(number: int, pair: AnswerPair, left: str) -> dict[str, Any]:
    answers = {"left": pair.a, "right": pair.b} if left == "a" else {"left": pair.b, "right": pair.a}
    texts = {"instruction": pair.instruction, "input": pair.input, **answers}
    return {"number": number, "id": pair.id, **{name: _plain(text) for name, text in texts.items()}, "choice": ""}


def key_path(path: PathLike) -> str:
    """Return the path of a table's key."""
    return f"{path}.key.json"


def read_ballots(path: PathLike) -> list[dict[str, str]]:
    """Return the rows of a table as `write_ballots` wrote it, with the choices that were made since.

    Raises:
      UserError: there is no such table, it is not as it was written, or a choice is neither left, right nor tie.
    """
    place = as_path(path, "--ballots")
    if not place.exists():
        raise UserError("--ballots", path, "no such file")
    rows = read_rows(place, "--ballots")
    if tuple(rows[0]) != COLUMNS:  # another column would be lost when a choice is written
        raise UserError("--ballots", path, FOREIGN)
    return [row | {"choice": _choice(row)} for row in rows]


def _choice(row: Mapping[str, str]) -> str:
    """Return the choice of a row, "" where there is none yet; raise UserError where it is another word."""
    choice = row["choice"].strip().lower()
    if choice and choice not in CHOICES:
        raise UserError(f"choice of pair {row['number']}", choice, nearest(choice, list(CHOICES)))
    return choice


def _plain(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def shown_text(text: str) -> str:
    """Return a text of a table as it was before `_plain`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def read_choices(path: PathLike) -> dict[str, Choice]:
    """Return the better run of each pair that has a choice, by the ids of chains.

    Args:
      path: of the CSV file that `write_ballots` wrote; its key lies beside it.

    Raises:
      UserError: there is no such file or key, or a choice is neither left, right nor tie.
    """
    place, key = as_path(path, "--score"), as_path(key_path(path), "--score")
    for file in (place, key):
        if not file.exists():
            raise UserError("--score", file, "no such file; write it with --ballots")
    left: dict[str, str] = files.read_value(key, ("left",), dict, "key")
    choices: dict[str, Choice] = {}
    for row in read_rows(place, "--score"):
        if row["id"] not in left:
            raise UserError("id", row["id"], f"is not in {key.name}; do not change the column `id`")
        if choice := _choice(row):
            choices[row["id"]] = _run(choice, left[row["id"]])
    if not choices:
        raise UserError("--score", path, f"has no choice yet; write {', '.join(CHOICES)} into the column `choice`")
    return choices


def _run(choice: str, left: str) -> Choice:
    if choice == "tie":
        return "tie"
    return "a" if (choice == "left") == (left == "a") else "b"
