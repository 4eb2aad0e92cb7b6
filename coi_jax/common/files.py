"""Reading with clear errors, writing so that a file is either whole or absent."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from coi_jax.common.errors import UserError

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def open_atomic(path: PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary neighbour of `path` for writing; it takes the name `path` only when the block ends well.

    The folder is created. A failure (a full disk, an exception) leaves what was at `path` before.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_text(path: PathLike, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with open_atomic(path) as file:
        file.write(text)


def write_bytes(path: PathLike, data: bytes) -> None:
    """Writes `data`, atomically."""
    with open_atomic(path, "wb") as file:
        file.write(data)


def write_json(path: PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_text(path: PathLike, field: str = "file") -> str:
    """The text of a UTF-8 file.

    Raises:
      UserError: it is missing, a folder, empty, or not UTF-8.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
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
    """The value of a JSON file; raises UserError where there is none."""
    try:
        return json.loads(read_text(path, field))
    except json.JSONDecodeError as error:
        raise UserError(
            field, f"{path}:{error.lineno}", f"not JSON ({error.msg}); it may be cut short: write it again"
        ) from None


def read_jsonl(path: PathLike, field: str = "file") -> Iterator[dict[str, Any]]:
    """Yields the objects of a JSON-lines file, one line in memory at a time.

    Raises:
      UserError: the file is missing or not UTF-8, or a line is not a JSON object; it names the line.
    """
    try:
        with open(path, "rb") as file:
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


def append_jsonl(file: IO[str], row: dict[str, Any]) -> None:
    """Appends one object to an open JSON-lines file and hands it to the operating system at once."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()


def recover_jsonl(path: PathLike) -> None:
    """Drops a last line that an interruption cut short, so that appending can go on."""
    if not Path(path).exists():
        return
    with open(path, "rb+") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def sha256(path: PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
