"""Text, JSON and JSON-lines files, local or in a bucket: read with clear errors, written whole or not at all."""

import codecs
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, TypeVar

from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import (
    BYTE_ORDER_MARK,
    MAX_BYTES,
    JsonError,
    decode_utf8,
    json_kind,
    parse_field,
    parse_json,
)
from coi_jax.common.storage import (
    AppendFile,
    PathLike,
    as_path,
    atomic_file,
    file_version,
    is_local,
    open_input,
    writable,
)

Value = TypeVar("Value")

MAX_LINE_BYTES = 2**26  # of a row in a JSON-lines file
PART = 2**20  # bytes that are read at once


def write_text(path: PathLike, text: str, field: str = "out") -> None:
    """Write `text` as UTF-8, atomically; an error calls the path `field`."""
    with atomic_file(path, field=field) as file:
        file.write(text)


def write_bytes(path: PathLike, data: bytes, field: str = "out") -> None:
    """Write `data`, atomically; an error calls the path `field`."""
    with atomic_file(path, "wb", field) as file:
        file.write(data)


def write_json(path: PathLike, value: Any, field: str = "out") -> None:
    """Write `value` as indented JSON, atomically; an error calls the path `field`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", field)


def read_bytes(path: PathLike, field: str = "file") -> bytes:
    """Read a file that a user named.

    Raises:
      UserError: it is missing, a folder, a pipe, cannot be opened, or is too large to be read at once.
    """
    with open_input(path, field) as file:
        data = _read_at_most(file, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UserError(field, path, f"is longer than {MAX_BYTES >> 20} MiB; name another file")
    return data


def _read_at_most(file: IO[bytes], count: int) -> bytes:
    """Return so many bytes of a file, or all: in parts, since Python reserves memory for as many as it is asked for."""
    data = bytearray()
    while part := file.read(min(PART, count - len(data))):
        data += part
    return bytes(data)


def read_text(path: PathLike, field: str = "file") -> str:
    """Read a UTF-8 file, without a byte order mark.

    Raises:
      UserError: it cannot be read (see `read_bytes`), is empty, or not UTF-8.
    """
    try:
        text = decode_utf8(read_bytes(path, field)).removeprefix(BYTE_ORDER_MARK)
    except JsonError as error:
        raise UserError(field, path, str(error)) from None
    if not text:
        raise UserError(field, path, "is empty; write it again")
    return text


def read_json(path: PathLike, field: str = "file") -> Any:
    """Read the value of a JSON file; raise UserError where there is none."""
    return parse_field(read_text(path, field), field, os.fspath(path))


def read_object(path: PathLike, field: str = "file") -> dict[str, Any]:
    """Read the object of a JSON file; raise UserError where there is none."""
    value = read_json(path, field)
    if not isinstance(value, dict):
        raise UserError(field, path, f"holds {json_kind(value)} where a JSON object is expected; write it again")
    return value


def read_value(
    path: PathLike,
    keys: Sequence[str],
    kind: type[Value],
    field: str,
    read: Callable[[PathLike, str], dict[str, Any]] = read_object,
) -> Value:
    """Read one value of a JSON file.

    Args:
      path: of the file.
      keys: of objects within one another, which lead to the value.
      kind: the type of the value.
      field: the name of the file in an error.
      read: what reads the file.

    Raises:
      UserError: the file has no such value.
    """
    value: Any = read(path, field)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, kind):
        raise UserError(field, path, f"{'.'.join(keys)} is not {json_kind(kind())}; write it again")
    return value


def read_jsonl(path: PathLike, field: str = "file") -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file, one line in memory at a time. Blank lines are skipped.

    Raises:
      UserError: the file cannot be read (see `read_bytes`) or a line is not a JSON object; it names the line.
    """
    return (row for _, row in read_placed_jsonl(path, field))


def read_placed_jsonl(path: PathLike, field: str = "file") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON-lines file as `read_jsonl`, each with its place, as `train.jsonl:3`, for errors."""
    for place, line in _limited_lines(path, field):
        if line.strip():
            yield place, _json_object(line, place, field)


def read_lines(path: PathLike, field: str = "file") -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends, one in memory at a time.

    Raises:
      UserError: the file cannot be read (see `read_bytes`), or a line is too long or not UTF-8; it names the line.
    """
    for place, line in _limited_lines(path, field):
        try:
            yield decode_utf8(line)
        except JsonError as error:
            raise UserError(field, place, str(error)) from None


def _limited_lines(path: PathLike, field: str) -> Iterator[tuple[str, bytes]]:
    """Yield each line with its place; line feeds alone end lines, since a text may hold other separators."""
    with open_input(path, field) as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            place = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise UserError(field, place, f"is longer than {MAX_LINE_BYTES >> 20} MiB; shorten the row")
            yield place, line


def _json_object(line: bytes, where: str, field: str) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except JsonError as error:
        raise UserError(field, where, str(error)) from None
    if not isinstance(row, dict):
        raise UserError(field, where, f"is {json_kind(row)} where a JSON object is expected; correct the line")
    return row


def append_jsonl(file: IO[str] | AppendFile, row: dict[str, Any]) -> None:
    """Append one object to an open JSON-lines file, and flush it."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    if not isinstance(file, AppendFile):
        file.flush()


def recover_jsonl(path: PathLike, field: str = "file") -> None:
    """Drop a last line that an interruption cut short, so that appending can go on; an object is never cut short.

    Args:
      path: of the file.
      field: its name in an error.
    """
    if not is_local(path) or not as_path(path).exists():
        return
    open_input(path, field).close()  # or an error that says what stands in place of the file
    with writable(path, field), open(path, "rb+") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def sha256(path: PathLike, field: str = "file") -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal; an error calls the file `field`."""
    with open_input(path, field) as file:
        found = hashlib.sha256()
        while block := file.read(2**24):
            found.update(block)
        return found.hexdigest()


def cached_sha256(path: PathLike) -> str:
    """Return the SHA-256 of a large file, computed once in a process for as long as the file stays as it is."""
    return _sha256_of_version(os.fspath(path), file_version(path))


@functools.lru_cache(maxsize=64)
def _sha256_of_version(path: str, _: str) -> str:
    return sha256(path)


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
