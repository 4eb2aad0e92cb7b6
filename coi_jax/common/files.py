"""Text, JSON and JSON-lines files, local or in a bucket: read with clear errors, written whole or not at all."""

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from typing import IO, Any

from coi_jax.common.errors import UserError
from coi_jax.common.storage import AppendFile, PathLike, as_path, atomic_file, file_version, is_local


def write_text(path: PathLike, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_file(path) as file:
        file.write(text)


def write_bytes(path: PathLike, data: bytes) -> None:
    """Write `data`, atomically."""
    with atomic_file(path, "wb") as file:
        file.write(data)


def write_json(path: PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_text(path: PathLike, field: str = "file") -> str:
    """Read a UTF-8 file.

    Raises:
      UserError: it is missing, a folder, empty, or not UTF-8.
    """
    try:
        text = as_path(path, field).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(field, path, "no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(field, path, "is a folder; name a file") from None
    except UnicodeDecodeError as error:
        raise UserError(field, path, f"byte {error.start} is not UTF-8; convert the file") from None
    if not text:
        raise UserError(field, path, "is empty; write it again")
    return text


def read_json(path: PathLike, field: str = "file") -> Any:
    """Read the value of a JSON file; raise UserError where there is none."""
    try:
        return json.loads(read_text(path, field))
    except json.JSONDecodeError as error:
        raise UserError(
            field, f"{path}:{error.lineno}", f"not JSON ({error.msg}); it may be cut short: write it again"
        ) from None


def read_jsonl(path: PathLike, field: str = "file") -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file, one line in memory at a time.

    Raises:
      UserError: the file is missing or not UTF-8, or a line is not a JSON object; it names the line.
    """
    try:
        with as_path(path, field).open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _json_object(line, f"{path}:{number}", field)
    except FileNotFoundError:
        raise UserError(field, path, "no such file; check the path") from None


def _json_object(line: bytes, where: str, field: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(field, where, "not UTF-8; convert the file") from None
    except json.JSONDecodeError as error:
        raise UserError(field, where, f"not JSON ({error.msg}); the file may be cut short") from None
    if not isinstance(row, dict):
        raise UserError(field, where, f"a {type(row).__name__}, where a JSON object is due")
    return row


def append_jsonl(file: IO[str] | AppendFile, row: dict[str, Any]) -> None:
    """Append one object to an open JSON-lines file, and flush it."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    if not isinstance(file, AppendFile):
        file.flush()


def recover_jsonl(path: PathLike) -> None:
    """Drop a last line that an interruption cut short, so that appending can go on; an object is never cut short."""
    if not is_local(path) or not as_path(path).exists():
        return
    with open(path, "rb+") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def sha256(path: PathLike) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with as_path(path).open("rb") as file:
        if is_local(path):
            return hashlib.file_digest(file, "sha256").hexdigest()
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
