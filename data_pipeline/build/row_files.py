"""Files of rows, read one row at a time: JSON, JSON lines, CSV, Parquet, and the folders of `datasets.save_to_disk`.

A source is one such file, a folder of them, or a repository of the Hugging Face Hub (`hf://datasets/org/name`). Where a
folder has several splits, the files of training are taken. All values of CSV are texts; Arrow's values are what JSON
has for them, so that a row can be kept whole wherever it ends.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from etils import epath

from coi_jax.common import files, hub
from coi_jax.common.errors import UserError, shorten
from coi_jax.common.storage import as_path, list_files, open_input
from coi_jax.common.wording import count_of
from data_pipeline.json_array import read_array

FIELD = "seeds.sources"
BATCH = 256  # rows of an Arrow table that are in memory at once
NAMED = 5  # files, in an error
SPLITS, STATE = "dataset_dict.json", "state.json"  # that `datasets.save_to_disk` writes
NOTES = (SPLITS, STATE, "dataset_info.json", "dataset_infos.json")
TRAIN = "train"
TRAINING = re.compile("(^|[^a-z])train([^a-z]|$)")  # in the name of a file or of its folder
SHARD = re.compile(r"-[0-9]+-of-[0-9]+\.")
CSV_KINDS = {".csv": "commas", ".tsv": "tabs"}  # what separates the values of each
SIZE = 2**28  # bytes of a batch of Arrow rows


def _read_json(path: str) -> Iterator[Any]:
    return read_array(path, FIELD)


def _read_jsonl(path: str) -> Iterator[Any]:
    return files.read_jsonl(path, FIELD)


def _read_csv(path: str, delimiter: str = ",") -> Iterator[Any]:
    """Yield the rows of a file as objects; a row of more or fewer values than the header is an error."""
    csv.field_size_limit(files.MAX_LINE_BYTES)
    reader = csv.reader(files.read_lines(path, FIELD), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if not header and next(reader, None) is not None:
            raise UserError(FIELD, f"{path}:1", "is blank, where the names of the columns are due; remove the line")
        if len(set(header)) < len(header):
            raise UserError(FIELD, path, f"has a column twice ({shorten(', '.join(header), 200)}); rename one")
        for row in filter(None, reader):
            if len(row) != len(header):
                hint = f"has {count_of(len(row), 'value')}, where its header has {len(header)}; correct the row"
                raise UserError(FIELD, f"{path}:{reader.line_num}", hint)
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        # csv says of a carriage return alone what only Python's `open` can do about it.
        is_old = "universal-newline" in str(error)
        reason = "lines end in carriage returns); end them with line feeds" if is_old else f"{error}); correct the row"
        raise UserError(FIELD, f"{path}:{reader.line_num}", f"is not CSV ({reason}") from None


def _read_tsv(path: str) -> Iterator[Any]:
    return _read_csv(path, "\t")


def _read_parquet(path: str) -> Iterator[Any]:
    with open_input(path, FIELD) as file:
        yield from _read_arrow(path, lambda: pyarrow.parquet.ParquetFile(file).iter_batches(BATCH))


def _read_arrow_stream(path: str) -> Iterator[Any]:
    with open_input(path, FIELD) as file:
        yield from _read_arrow(path, lambda: iter(pyarrow.ipc.open_stream(file)))


def _read_arrow(path: str, open_batches: Callable[[], Iterator[pyarrow.RecordBatch]]) -> Iterator[Any]:
    try:
        for batch in open_batches():
            for start in range(0, batch.num_rows, BATCH):
                part = batch.slice(start, BATCH)
                if part.nbytes > SIZE:
                    raise UserError(FIELD, path, f"has rows of more than {SIZE // BATCH >> 20} MiB; shorten them")
                yield from map(_plain, part.to_pylist())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())
        raise UserError(FIELD, path, f"cannot be read ({shorten(reason, 150)}); fetch it again") from None


def _plain(value: Any) -> Any:
    """Return a value of Arrow as JSON has it, and never in Python's own spelling, which would be trained on.

    Dates and the like become text; NaN, as pandas writes null, is null; bytes that are no text become an object.
    """
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, bytes):
        return _text(value)
    return None if isinstance(value, float) else str(value)


def _text(value: bytes) -> Any:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"bytes": len(value)}


READERS: dict[str, Callable[[str], Iterator[Any]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow_stream,
}


def read_rows(path: str) -> Iterator[Any]:
    """Yield the rows of a file, by the kind that its name says.

    Raises:
      UserError: it is of another kind, missing, damaged, or has a row beyond the limits.
    """
    kind = Path(path).suffix.lower()
    if kind not in READERS:
        raise UserError(FIELD, path, f"is no file of rows; name one that ends with {', '.join(READERS)}")
    yield from READERS[kind](path)


def find_files(source: str) -> list[str]:
    """Return the files of a source, in order.

    Args:
      source: a file, a folder, or a repository of the Hub or a part of one.

    Raises:
      UserError: there are none, or it is open which of several files are meant.
    """
    if hub.is_hub(source):
        parts = _hub_dataset(source)
        return _of_folder(epath.Path(hub.download(source, FIELD, _patterns(parts))) / parts.path, source)
    path = as_path(source, FIELD)
    if not path.exists():
        raise UserError(FIELD, path, "no such file; check the path")
    return _of_folder(path, source)


def pinned(source: str) -> str:
    """Return a source by which the same rows are found again: a repository of the Hub at its commit."""
    return hub.pin(source, FIELD, _patterns(_hub_dataset(source))) if hub.is_hub(source) else source


def _hub_dataset(source: str) -> hub.HubUrl:
    """Return the parts of the URL of a dataset of the Hub; raise UserError where it names a model."""
    parts = hub.parse(source, FIELD)
    if parts.kind != "dataset":
        hint = f"names a model; for a dataset, write {parts._replace(kind='dataset')}"
        raise UserError(FIELD, source, hint)
    return parts


def _patterns(parts: hub.HubUrl) -> tuple[str, ...]:
    return (f"{parts.path}*",) if parts.path else tuple(f"*{kind}" for kind in READERS)


def _of_folder(path: epath.Path, source: str) -> list[str]:
    if not path.is_dir():
        return [str(path)]
    if (path / STATE).exists():
        return _saved_files(path)
    if (path / SPLITS).exists():
        splits = files.read_value(path / SPLITS, ("splits",), list, FIELD)
        if TRAIN not in splits:
            raise UserError(FIELD, source, f"has the splits {', '.join(map(str, splits))}; name the folder of one")
        return _saved_files(path / TRAIN)
    names = [name for name in list_files(path) if Path(name).suffix.lower() in READERS and Path(name).name not in NOTES]
    chosen = [name for name in names if TRAINING.search(name.lower())] or names
    is_clear = len({Path(name).suffix for name in chosen}) == 1 and (
        chosen is not names or len(names) == 1 or all(map(SHARD.search, names))
    )
    if not is_clear:
        listed = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
        several = f"has several files ({listed}); name one of them"
        hint = several if names else f"has no file that ends with {', '.join(READERS)}; name another"
        raise UserError(FIELD, source, hint)
    return [str(path / name) for name in chosen]


def _saved_files(folder: epath.Path) -> list[str]:
    """Return the files of one split that `datasets.save_to_disk` wrote."""
    entries = files.read_value(folder / STATE, ("_data_files",), list, FIELD)
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    if not names or not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+\.arrow", name) for name in names):
        raise UserError(FIELD, folder / STATE, "names no Arrow files; save the dataset again")
    return [str(folder / name) for name in names]
