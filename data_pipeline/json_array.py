"""Reads a JSON array one element at a time, so that a file need not fit in memory.

The parser is ijson's, in its Python implementation: the C implementation turns half a surrogate pair into "?", and a
row must be kept as it is.
"""

import codecs
import collections
import contextlib
import decimal
import json
from collections.abc import Callable, Iterator
from typing import IO, Any

import ijson
from ijson.common import JSONError, ObjectBuilder

from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path

CHUNK_BYTES = 1 << 16
MAX_DEPTH = 500  # of lists and objects within a row
_STARTS, _ENDS = ("start_array", "start_map"), ("end_array", "end_map")
_PARSER = ijson.get_backend("python")
Event = tuple[str, Any]


def read_array(path: PathLike, field: str = "file") -> Iterator[Any]:
    """Yield the elements of the JSON array in a UTF-8 file, in order.

    Raises:
      UserError: the file is missing, empty, not UTF-8, not one JSON array, or cut short; it names the element.
    """
    try:
        with as_path(path, field).open("rb") as file:
            yield from _ArrayReader(file, path, field).elements()
    except FileNotFoundError:
        raise UserError(field, path, "no such file; check the path") from None


class _ArrayReader:
    """Puts the parser's events together to elements, and says at which element a file goes wrong."""

    def __init__(self, file: IO[bytes], path: PathLike, field: str) -> None:
        self._path, self._field = path, field
        self._file = _Utf8File(file, self._error)
        self._number = 0  # of elements that are complete

    def _error(self, where: str, hint: str) -> UserError:
        return UserError(self._field, f"{self._path}{where}", hint)

    def elements(self) -> Iterator[Any]:
        """Yield the elements."""
        events = self._events()
        if next(events)[0] != "start_array":
            raise self._error("", "is not a JSON array of rows; check that it is a file of the release")
        for event in events:
            if event[0] == "end_array":
                break
            yield self._element(event, events)
            self._number += 1
        if next(events, None) is not None:
            raise self._error("", f"has text after its array of {self._number} rows; fetch it again")

    def _events(self) -> Iterator[Event]:
        """Yield the parser's events; its errors become the user's."""
        depth, ended = 0, False
        parser = _PARSER.basic_parse(self._file, buf_size=CHUNK_BYTES)
        try:
            for event in parser:
                depth += (event[0] in _STARTS) - (event[0] in _ENDS)
                if depth > MAX_DEPTH:
                    raise self._error(f" (row {self._number})", "is nested too deep to be a row; correct the file")
                ended = depth == 0
                yield event
        except (JSONError, json.JSONDecodeError) as error:
            raise self._file.failure or self._syntax_error(error, ended) from None
        finally:  # a parser that is left in the middle would complain on standard error
            self._file.end()
            with contextlib.suppress(JSONError, json.JSONDecodeError):
                collections.deque(parser, maxlen=0)

    def _syntax_error(self, error: Exception, ended: bool) -> UserError:
        if self._file.is_blank:
            return self._error("", "is empty; fetch it again")
        if ended:
            return self._error("", f"has text after its array of {self._number} rows; fetch it again")
        where = f" (row {self._number}, after {self._number} rows)"
        return self._error(where, f"not JSON ({error}); the file may be cut short: fetch it again")

    def _element(self, event: Event, events: Iterator[Event]) -> Any:
        """Return the element that begins with an event."""
        builder, depth = ObjectBuilder(), 0
        while True:
            name, value = event
            builder.event(name, float(value) if isinstance(value, decimal.Decimal) else value)
            depth += (name in _STARTS) - (name in _ENDS)
            if not depth:
                return builder.value
            event = next(events)


class _Utf8File:
    """A file that keeps the place of a byte that is not UTF-8 as its failure, and leaves out a byte order mark."""

    def __init__(self, file: IO[bytes], error: Callable[[str, str], UserError]) -> None:
        self._file, self._error = file, error
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes_read, self._ended = 0, False
        self.is_blank = True
        self.failure: UserError | None = None

    def end(self) -> None:
        """Read no more."""
        self._ended = True

    def read(self, size: int = -1) -> bytes:
        """Return about `size` bytes; none at the end of the file, or where it is not UTF-8."""
        while size and not self._ended:  # the parser asks for no byte first, to see the type
            data = self._file.read(size)
            self._ended = not data
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                where = f" (byte {self._bytes_read + error.start} or just before)"
                self.failure = self._error(where, "is not UTF-8; convert the file")
                break
            self._bytes_read += len(data)
            self.is_blank = self.is_blank and not text.strip()
            if text:
                return text.encode("utf-8")
        return b""
