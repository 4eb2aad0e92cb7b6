"""Lays out tables for people: as plain text for a terminal, or as Markdown."""

from collections.abc import Iterable, Sequence

import tabulate


def text_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a plain table: columns of numbers aligned to the right, columns of words to the left."""
    cells = [[_cell(value) for value in row] for row in rows]
    # With the headers as a row: tabulate makes columns two characters wider than their headers.
    text = tabulate.tabulate([headers, *cells], (), "plain", colalign=_alignment(cells), disable_numparse=True)
    return [line.rstrip() for line in text.split("\n")]


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    cells = [[_cell(value) for value in row] for row in rows]
    text = tabulate.tabulate(cells, headers, "github", colalign=_alignment(cells), disable_numparse=True)
    return text.split("\n")


def _alignment(rows: Sequence[Sequence[str]]) -> list[str] | None:
    return ["right" if _holds_numbers(column) else "left" for column in zip(*rows, strict=True)] or None


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _holds_numbers(column: Sequence[str]) -> bool:
    """Return whether most of the cells that are not empty begin with a digit, or stand for no number."""
    filled = [cell for cell in column if cell]
    return 2 * sum(cell[0].isdigit() or cell == "–" for cell in filled) > len(filled)
