"""Stores of completed replies, by the key of their call: a stored reply is never asked or paid for again.

A store is a SQLite file by default; a folder, which may be in a bucket (`gs://…`), serves workers on many machines.
"""

import contextlib
import json
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

from etils import epath

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.seals import seal_row, unseal_row
from coi_jax.common.storage import as_path, local_path, make_folder, writable
from coi_jax.llm.calls import NO_COMPLETION, Reply

BUSY_SECONDS = 60.0  # that a writer waits for another process
SMALLEST = 512  # bytes of a page of SQLite, which every store has
RESTORE = "restore it from a copy; to ask for all its replies, and pay them, again, remove it"


@runtime_checkable
class Store(Protocol):
    """Replies by key. Both methods may be called from any thread and process."""

    def get(self, key: str) -> Reply | None:
        """Return the reply to a call, None where there is none."""

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; on return it survives the end of this process."""

    def __iter__(self) -> Iterator[str]:
        """Return the keys."""


class SqliteStore:
    """A SQLite file. Each thread has its own connection; writers of several processes wait for one another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent, "store")
        self._local = threading.local()
        if not path.exists():
            with writable(path, "store"):
                _make(path)
        self._check()

    def _check(self) -> None:
        """Raise UserError where a file is no store: SQLite itself takes one that was cut to nothing for a new one."""
        size = self.path.stat().st_size
        if size < SMALLEST:
            raise self._damage(f"it is cut short, to {size} bytes")
        if not self._execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'replies'"):
            raise self._damage("it has no table of replies")

    def _damage(self, reason: object) -> UserError:
        return UserError("store", self.path, f"cannot be used as a store of replies ({reason}); {RESTORE}")

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing; only a power cut might
            self._local.connection = connection
        return connection

    def _execute(self, command: str, *values: str) -> list[tuple[str, ...]]:
        """Run a command of SQL, and return its rows; raise UserError where the file is damaged or cannot be written."""
        try:
            return self._connection().execute(command, values).fetchall()
        except sqlite3.Error as error:
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                raise self._damage(error) from None
            hint = f"cannot be used as a store of replies ({error}); make room, or name another file"
            raise UserError("store", self.path, hint) from None

    def get(self, key: str) -> Reply | None:
        """See `Store`."""
        rows = self._execute("SELECT reply FROM replies WHERE key = ?", key)
        return _decoded(rows[0][0], f"{self.path}, reply {key[:12]}") if rows else None

    def put(self, key: str, reply: Reply) -> None:
        """See `Store`."""
        self._execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", key, _encoded(reply))

    def __iter__(self) -> Iterator[str]:
        return (row[0] for row in self._execute("SELECT key FROM replies ORDER BY key"))


def _make(path: Path) -> None:
    """Make an empty store, which appears whole: another process must not take one that is being made for a damaged one.

    Where another process makes it at the same time, that one is taken.

    Raises:
      UserError: there is no room for it.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        partial = Path(folder) / path.name
        try:
            with contextlib.closing(sqlite3.connect(partial)) as connection:
                connection.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        except sqlite3.Error as error:
            raise UserError("store", path, f"cannot be made ({error}); make room, or name another file") from None
        try:
            os.link(partial, path)
        except OSError:  # it is there, or the file system has no links
            if not path.exists():
                os.replace(partial, path)


class FolderStore:
    """A file for each reply, in a folder, local or in a bucket."""

    def __init__(self, folder: str) -> None:
        self._root = as_path(folder, "store")
        make_folder(self._root, "store")

    def _path(self, key: str) -> epath.Path:
        return self._root / key[:2] / f"{key}.json"

    def get(self, key: str) -> Reply | None:
        """See `Store`."""
        path = self._path(key)
        try:
            return _decoded(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None

    def put(self, key: str, reply: Reply) -> None:
        """See `Store`."""
        files.write_bytes(self._path(key), _encoded(reply).encode(), "store")

    def __iter__(self) -> Iterator[str]:
        paths = self._root.glob("*/*.json")
        return iter(sorted(path.stem for path in paths if not path.name.startswith(".")))


def _encoded(reply: Reply) -> str:
    """Return a reply as ASCII, with its checksum; its escapes keep whatever a model wrote, halves of pairs too."""
    return json.dumps(seal_row(asdict(reply)))


def _decoded(data: str | bytes, where: str) -> Reply | None:
    """Return a stored reply; None for a body that is no completion, which earlier versions kept as a reply.

    Raises:
      UserError: it is damaged, as asking again would be paid again.
    """
    hint = "remove it, and it is asked for again"
    try:
        reply = Reply.from_row(unseal_row(json.loads(data), "store", where, hint))
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError("store", where, f"is damaged ({error}); {hint}") from None
    return None if str(reply.fault).startswith(NO_COMPLETION) else reply


def open_store(path: str) -> Store:
    """Return the store at a path: a SQLite file where the path ends in `.sqlite`, a folder otherwise.

    Raises:
      UserError: a SQLite file in a bucket, or a file that is none.
    """
    if path.endswith(".sqlite"):
        return SqliteStore(local_path(path, "store", "is a SQLite file"))
    return FolderStore(path)
