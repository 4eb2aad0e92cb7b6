"""The CSV file of ballots: written whole, and read strictly, since spreadsheets and people have changed it since."""

import collections
import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError, shorten
from coi_jax.common.json_reader import MAX_BYTES
from coi_jax.common.storage import PathLike
from coi_jax.common.wording import count_of

COLUMNS = ("number", "id", "instruction", "input", "left", "right", "choice")
DELIMITERS = (",", ";", "\t", "|")  # with which spreadsheets save a table
FOREIGN = "was not written by this command; name another file"


def write_rows(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table whole or not at all."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a text may hold a lone \r
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, buffer.getvalue(), "--ballots")


def read_rows(path: PathLike, field: str) -> list[dict[str, str]]:
    """Return the rows of a table, by the names of the columns. Empty rows are skipped.

    Args:
      path: of the CSV file.
      field: the name of the file in an error.

    Raises:
      UserError: it is not CSV, has other columns, a row has more or fewer values than the header, a pair is there
        twice, or there is none.
    """
    text = files.read_text(path, field)
    csv.field_size_limit(MAX_BYTES)  # Python's own limit is smaller than an answer may be
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = [name.strip() for name in next(reader)]
        _check_columns(header, path, field)
        for values in reader:
            if any(values):
                place = f"{path}:{reader.line_num}"
                _check_length(values, header, place, field)
                rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as error:
        hint = f"is not CSV ({error}); correct the row, or write the table again with --ballots"
        raise UserError(field, f"{path}:{reader.line_num}", hint) from None
    _check_pairs(rows, path, field)
    return rows


def _delimiter(text: str) -> str:
    """Return what separates the columns: of the possible separators, the most frequent one of the first line."""
    header = text.partition("\n")[0]
    return max(DELIMITERS, key=header.count)


def _check_columns(header: Sequence[str], path: PathLike, field: str) -> None:
    """Raise UserError unless every column of a table is there, once."""
    if not set(header) & set(COLUMNS):
        raise UserError(field, path, FOREIGN)
    for name in COLUMNS:
        if header.count(name) != 1:
            fault = f"has the column {name!r} twice" if name in header else f"has no column {name!r}"
            columns = shorten(", ".join(header), 200)
            raise UserError(field, path, f"{fault} (its columns are {columns}); correct its first row")


def _check_length(values: Sequence[str], header: Sequence[str], place: str, field: str) -> None:
    if len(values) != len(header):
        hint = f"the row has {count_of(len(values), 'value')}, where the header has {len(header)}; correct the row"
        raise UserError(field, place, hint)


def _check_pairs(rows: Sequence[Mapping[str, str]], path: PathLike, field: str) -> None:
    """Raise UserError where a table has no pair, or one twice."""
    if not rows:
        raise UserError(field, path, "has no pair; write it again with --ballots")
    [(id, count)] = collections.Counter(row["id"] for row in rows).most_common(1)
    if count > 1:
        raise UserError(field, path, f"has {count} rows of the pair {shorten(id, 100)}; keep the row that counts")
