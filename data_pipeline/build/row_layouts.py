"""Recognizes how the rows of a file spell single instructions, by their keys.

A layout turns a row into examples: an instruction, its input, its output. The first row with known keys says which
layout a file has; `--columns` says it where none is recognized.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from coi_jax.common.errors import UserError, shorten
from coi_jax.common.json_reader import json_kind
from data_pipeline.build.row_files import CSV_KINDS, FIELD

INSTRUCTION, INPUT, OUTPUT = "instruction", "input", "output"
USERS, MODELS = ("human", "user"), ("gpt", "assistant", "model")  # who speaks, by the names of various files
NAMED_KEYS = 20  # of a row, in an error
NO_TEXTS = "an instruction or an output that is missing, empty or no text"


class Example(NamedTuple):
    """A single instruction."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class Layout:
    """A way to spell single instructions.

    Attributes:
      name: which names the source of its rows.
      keys: those that every row has.
      read: returns the examples of a row, or why it has none.
    """

    name: str
    keys: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], list[Example] | str]


def by_columns(name: str, columns: Mapping[str, str]) -> Layout:
    """Return the layout of rows that have each text in a column of its own.

    Args:
      name: of the layout.
      columns: the names of the columns of `instruction`, `output` and perhaps `input`.
    """

    def read(row: Mapping[str, Any]) -> list[Example] | str:
        found = _example(*(row.get(columns[field]) if field in columns else "" for field in Example._fields))
        return found if isinstance(found, str) else [found]

    return Layout(name, (columns[INSTRUCTION], columns[OUTPUT]), read)


def _example(instruction: Any, given: Any, output: Any) -> Example | str:
    """Return an example, or why there is none; an input may be missing."""
    given = "" if given is None else given
    if not isinstance(given, str):
        return "an input that is no text"
    if isinstance(instruction, str) and instruction.strip() and isinstance(output, str) and output.strip():
        return Example(instruction, given, output)
    return NO_TEXTS


def _read_instances(row: Mapping[str, Any]) -> list[Example] | str:
    """Return the examples of a row of Self-Instruct, which has several for one instruction."""
    instances = row.get("instances")
    if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        return "instances that are no list of objects"
    if not instances:
        return "an instruction without instances"
    found = [_example(row.get(INSTRUCTION), one.get(INPUT), one.get(OUTPUT)) for one in instances]
    return next((one for one in found if isinstance(one, str)), None) or [
        one for one in found if isinstance(one, Example)
    ]


def _turns(key: str) -> Callable[[Mapping[str, Any]], list[Example] | str]:
    """Return what reads the first question of a conversation and the answer that follows it."""

    def read(row: Mapping[str, Any]) -> list[Example] | str:
        turns = row.get(key)
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            return f"{key} that are no list of objects"
        said = [(turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))) for turn in turns]
        spoken = [(speaker, text) for speaker, text in said if speaker in (*USERS, *MODELS)]
        if len(spoken) < 2 or spoken[0][0] not in USERS or spoken[1][0] not in MODELS:
            return "a conversation that does not begin with a question and its answer"
        found = _example(spoken[0][1], "", spoken[1][1])
        return found if isinstance(found, str) else [found]

    return read


ALPACA = by_columns("alpaca", {INSTRUCTION: INSTRUCTION, INPUT: INPUT, OUTPUT: OUTPUT})
# In the order in which they are tried.
LAYOUTS = (
    ALPACA,
    by_columns("dolly", {INSTRUCTION: "instruction", INPUT: "context", OUTPUT: "response"}),
    Layout("self_instruct", ("instruction", "instances"), _read_instances),
    Layout("sharegpt", ("conversations",), _turns("conversations")),
    Layout("messages", ("messages",), _turns("messages")),
    Layout(
        "natural_instructions",
        ("definition", "inputs", "targets"),
        by_columns("", {INSTRUCTION: "definition", INPUT: "inputs", OUTPUT: "targets"}).read,
    ),
    by_columns("flan", {INSTRUCTION: "inputs", OUTPUT: "targets"}),
    by_columns("prompts", {INSTRUCTION: "prompt", OUTPUT: "completion"}),
)


def recognize(row: Any, path: str, columns: Mapping[str, str]) -> Layout | None:
    """Return the layout that a row of a file has; None where it has the keys of none.

    Args:
      row: of the file.
      path: of the file, for an error.
      columns: names of columns, which say the layout where there are any.

    Raises:
      UserError: the row lacks one of the columns.
    """
    keys = list(row) if isinstance(row, dict) else []
    if columns:
        if missing := [name for name in columns.values() if name not in keys]:
            hint = f"has no column {', '.join(missing)}; its columns are {_listed(keys)}"
            hint = _other_delimiter(keys, path) or hint
            raise UserError(FIELD, path, hint)
        return by_columns("columns", columns)
    return next((layout for layout in LAYOUTS if set(layout.keys) <= set(keys)), None)


def unknown_layout(row: Any, path: str) -> UserError:
    """Return the error about a file whose rows have the keys of no layout.

    Args:
      row: one of them.
      path: of the file.
    """
    if not isinstance(row, dict):
        hint = f"has a row that is {json_kind(row)} where an object is expected; correct the row"
        return UserError(FIELD, path, hint)
    keys = list(row)
    hint = _other_delimiter(keys, path) or (
        f"has rows with the keys {_listed(keys)}, which is no layout that is known; say which they are: "
        "--columns instruction=KEY,input=KEY,output=KEY (input may be left out)"
    )
    return UserError(FIELD, path, hint)


def _other_delimiter(keys: list[Any], path: str) -> str:
    """Return what to do with a file of columns whose only one holds what separates columns elsewhere; else ""."""
    ends = next((end for end in CSV_KINDS if path.lower().endswith(end)), None)
    found = [sign for sign in (";", "\t", ",", "|") if len(keys) == 1 and sign in str(keys[0])]
    if ends is None or not found:
        return ""
    other = {"\t": "tabs", ",": "commas"}.get(found[0], repr(found[0]))
    fix = {"\t": "name it *.tsv", ",": "name it *.csv"}.get(found[0], f"write it with {CSV_KINDS[ends]}")
    return f"has one column, {str(keys[0])!r:.100}: its values seem to be separated by {other}; {fix}"


def _listed(keys: list[Any]) -> str:
    return shorten(", ".join(map(str, keys[:NAMED_KEYS])) or "(none)", 200)
