"""The files of a table: Markdown for readers, LaTeX for papers, CSV for spreadsheets, JSON that traces every cell."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from coi_jax.common import files
from coi_jax.common.storage import PathLike
from coi_jax.reporting import paper
from coi_jax.reporting.run_records import PROVENANCE

Grid = list[list[str]]  # rows of text; the first is the header

# What LaTeX's default fonts and input encoding do not take as it is.
_LATEX = str.maketrans({"±": r"$\pm$", "−": r"$-$", "–": "--", "…": r"\ldots{}"})


@dataclass(frozen=True)
class Table:
    """A table as it is written.

    Attributes:
      name: of its files, as "table4".
      title: heading of the page.
      sections: a heading and a grid for each part.
      notes: what a reader needs to interpret it.
      cells: every number, with what it comes from, for JSON.
      rows: the same for CSV, as one column for each key.
      content: what the JSON file has besides `cells`.
      appendix: the end of the page.
    """

    name: str
    title: str
    sections: Mapping[str, Grid]
    notes: Sequence[str]
    cells: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    content: Mapping[str, Any]
    appendix: str = ""


def write_table(table: Table, folder: PathLike) -> list[str]:
    """Write the files of a table into a folder and return their names.

    The JSON file is the first: it says who wrote the others, where a full disk leaves only some of them.
    """
    files.write_json(f"{folder}/{table.name}.json", {**table.content, "cells": list(table.cells)})
    texts = {"md": as_page(table), "tex": as_latex(table), "csv": as_csv(table)}
    for kind, text in texts.items():
        files.write_text(f"{folder}/{table.name}.{kind}", text)
    return [*(f"{table.name}.{kind}" for kind in texts), f"{table.name}.json"]


def as_page(table: Table) -> str:
    """Return a table as a Markdown page: a section for each part, then notes and appendix."""
    parts = [f"# {table.title}"]
    for heading, grid in table.sections.items():
        parts += [f"## {heading}", as_markdown(grid)]
    parts += ["## Notes", "\n".join(f"- {note}" for note in table.notes)]
    return "\n\n".join([*parts, *([table.appendix] if table.appendix else [])]) + "\n"


def as_markdown(grid: Grid) -> str:
    """Return a grid as a Markdown table."""
    header, *body = grid
    return tabulate(body, header, tablefmt="github", disable_numparse=True)


def as_latex(table: Table) -> str:
    """Return a table's parts as LaTeX environments with the rules of the package booktabs, notes as comments."""
    parts = [f"% {note}" for note in table.notes]
    for heading, (header, *body) in table.sections.items():
        alignment = ("left", *("right",) * (len(header) - 1))
        rows = tabulate(body, header, tablefmt="latex_booktabs", disable_numparse=True, colalign=alignment)
        parts += ["", r"\begin{table}", rf"\caption{{{_escape(table.title)}: {_escape(heading)}}}", r"\centering"]
        parts += [rows, r"\end{table}"]
    return "\n".join(parts).translate(_LATEX) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def as_csv(table: Table) -> str:
    """Return a line for each row, under the names of their columns."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(table.rows[0]) if table.rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.rows)
    return buffer.getvalue()


def flat_row(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell of scores as one row: what several seeds come from is joined with spaces.

    Args:
      cell: as `Cell.to_dict` has it, with the paper's values.
    """
    plain = {name: cell[name] for name in ("arm", "test_set", "metric", "n", "mean", "sd", "low", "high")}
    papers = {f"{key}_{model}": cell[key].get(model) for key in ("paper", "difference") for model in paper.models()}
    sources = {
        f"from_{name}": " ".join(dict.fromkeys(str(source[name]) for source in cell["sources"])) for name in PROVENANCE
    }
    return {**plain, **papers, **sources}
