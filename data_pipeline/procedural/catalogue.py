"""All operations: chosen by name or family, found again from an instruction, and listed."""

import collections
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from coi_jax.common.errors import UserError, nearest
from data_pipeline.procedural.operation import Operation
from data_pipeline.procedural.operations import dates, lists, paragraphs, records, scores, sentences
from data_pipeline.procedural.operations import numbers as number_lists
from data_pipeline.text_tables import markdown_table

OPERATIONS: tuple[Operation, ...] = (
    *lists.OPERATIONS,
    *number_lists.OPERATIONS,
    *sentences.OPERATIONS,
    *paragraphs.OPERATIONS,
    *dates.OPERATIONS,
    *records.OPERATIONS,
    *scores.OPERATIONS,
)


@functools.cache
def by_name() -> dict[str, Operation]:
    """Return the operations by their names."""
    return {operation.name: operation for operation in OPERATIONS}


@functools.cache
def families() -> dict[str, list[Operation]]:
    """Return the operations of each family."""
    found = collections.defaultdict(list)
    for operation in OPERATIONS:
        found[operation.family].append(operation)
    return dict(found)


@functools.cache
def numbers() -> dict[str, int]:
    """Return a number for each operation: its place among those that take the same type.

    Splits are made from these, so they depend on nothing else; new operations go to the end of their module.
    """
    counts: collections.Counter[str] = collections.Counter()
    found = {}
    for operation in OPERATIONS:
        found[operation.name] = counts[operation.source.name]
        counts[operation.source.name] += 1
    return found


def select(names: Sequence[str], max_level: int, field: str = "operations") -> tuple[Operation, ...]:
    """Return the operations of some names and families, up to a level, in the catalogue's order.

    Args:
      names: of operations and families.
      max_level: of the operations.
      field: what the names were given for, in an error.

    Raises:
      UserError: a name is empty, or neither an operation nor a family (the nearest are given), or nothing is left.
    """
    known, wanted = [*families(), *by_name()], [name.strip() for name in names]
    if not all(wanted):
        hint = "has an empty name; write names with one comma between, as lists,sort_words"
        raise UserError(field, ",".join(names), hint)
    for name in wanted:
        if name not in known:
            hint = f"{nearest(name, known)} (python -m data_pipeline.procedural --list prints all)"
            raise UserError(field, name, hint)
    chosen = [operation for operation in OPERATIONS if {operation.name, operation.family} & set(wanted)]
    kept = tuple(operation for operation in chosen if operation.level <= max_level)
    if not kept:
        raise UserError("max_level", max_level, "leaves no operation; raise it or choose other operations")
    return kept


def understand(instruction: str) -> tuple[Operation, dict[str, Any]] | None:
    """Return the operation and the arguments that an instruction asks for, or None where it asks for none."""
    for operation in OPERATIONS:
        arguments = operation.read(instruction)
        if arguments is not None:
            return operation, arguments
    return None


def table(operations: Iterable[Operation]) -> str:
    """Return the catalogue as a markdown table."""
    rows = (
        [op.name, op.family, op.category, op.level, f"{op.source.name} → {op.result.name}", op.phrasings[0]]
        for op in operations
    )
    return "\n".join(markdown_table(["operation", "family", "category", "level", "takes → gives", "example"], rows))
