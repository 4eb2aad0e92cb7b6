"""Reads a JSON array one element at a time, so that a file need not fit in memory.

The elements are read as strictly as any other JSON (`coi_jax.common.json_reader`).
"""

import codecs
import json
from collections.abc import Callable, Iterator
from typing import IO, Any

from coi_jax.common.errors import UserError, shorten
from coi_jax.common.files import MAX_LINE_BYTES
from coi_jax.common.json_reader import JsonError, parse_value
from coi_jax.common.storage import PathLike, open_input
from coi_jax.common.wording import count_of

CHUNK_BYTES = 1 << 16
MAX_CHARACTERS = MAX_LINE_BYTES  # of an element
_LONGEST_TOKEN = 16  # characters at the end of a chunk that may be the beginning of a literal, exponent or escape
_SPACE = " \t\r\n"


def read_array(path: PathLike, field: str = "file", *, allow_surrogates: bool = False) -> Iterator[Any]:
    """Yield the elements of the JSON array in a UTF-8 file, in order.

    Args:
      path: of the file.
      field: its name in an error.
      allow_surrogates: whether a string may hold half of a surrogate pair.

    Raises:
      UserError: the file is missing, empty, not UTF-8, not one JSON array, or cut short; it names the element.
    """
    with open_input(path, field) as file:
        yield from _ArrayReader(file, path, field, allow_surrogates).elements()


class _ArrayReader:
    """Reads elements from a text of which only the part that is not read yet is in memory."""

    def __init__(self, file: IO[bytes], path: PathLike, field: str, allow_surrogates: bool) -> None:
        self._path, self._field, self._allow_surrogates = path, field, allow_surrogates
        self._file = _Utf8File(file, self._error)
        self._text, self._place = "", 0
        self._number = 0  # of elements that are complete

    def _error(self, where: str, hint: str) -> UserError:
        return UserError(self._field, f"{self._path}{where}", hint)

    def _element_error(self, reason: str) -> UserError:
        return self._error(f" (element {self._number + 1} of the array)", reason)

    def elements(self) -> Iterator[Any]:
        """Yield the elements."""
        self._begin()
        ended = self._skip("]")
        while not ended:
            yield self._element()
            self._number += 1
            ended = self._skip("]")
            if not ended and not self._skip(","):
                reason = _syntax("Expecting ',' delimiter" if self._next() else "it ends")
                raise self._error(f" (after element {self._number} of the array)", reason)
        if self._next():
            raise self._error("", f"has text after its array of {count_of(self._number, 'element')}; fetch it again")

    def _begin(self) -> None:
        if not self._next():
            raise self._error("", "is empty; fetch it again")
        if self._skip("["):
            return
        if key := self._key_of_array():
            hint = f"is an object whose key {shorten(key, 40)} holds an array; write that array into a file of its own"
            raise self._error("", hint)
        raise self._error("", "is not a JSON array of rows; if each line is a row, name the file .jsonl")

    def _key_of_array(self) -> str | None:
        """Return the first key that holds an array, where the file is one object, and not one on each line."""
        found = None
        try:
            more = self._skip("{")
            while more:
                key = self._element()
                self._skip(":")
                found = found or (key if self._next() == "[" else None)
                self._element()
                more = self._skip(",")
            return found if self._skip("}") and not self._next() else None
        except UserError:
            return found  # the array is longer than an element may be, or the file is cut short

    def _next(self) -> str:
        """Return the next character that is no white space; "" at the end of the file."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _SPACE:
                self._place += 1
            if self._place < len(self._text) or not self._fill():
                return self._text[self._place : self._place + 1]

    def _skip(self, character: str) -> bool:
        """Skip a character after white space; return whether it is there."""
        found = self._next() == character
        self._place += found
        return found

    def _fill(self) -> bool:
        """Read as much text again as is not read yet, at least a chunk; return whether there is more."""
        rest = self._text[self._place :]
        more = self._file.read(max(CHUNK_BYTES, len(rest)))
        self._text, self._place = rest + more, 0
        return bool(more)

    def _element(self) -> Any:
        """Return the element that begins here, with as much text of the file as it takes."""
        self._next()
        while True:
            try:
                value, end = parse_value(self._text, self._place, allow_surrogates=self._allow_surrogates)
                length = end - self._place
                # A number may go on in the next chunk, as `1e` of `1e5`.
                if end + _LONGEST_TOKEN <= len(self._text) or not self._fill():
                    self._place += length
                    return value
            except JsonError as error:
                raise self._element_error(str(error)) from None
            except json.JSONDecodeError as error:
                if self._is_definite(error) or not self._fill():
                    raise self._element_error(_syntax(error.msg)) from None
            if len(self._text) > MAX_CHARACTERS + CHUNK_BYTES:
                raise self._element_error(f"is longer than {MAX_CHARACTERS >> 20} MiB; shorten the row")

    def _is_definite(self, error: json.JSONDecodeError) -> bool:
        """Return whether more text cannot mend an error: it is not at the end, as that of a text cut short is."""
        return not error.msg.startswith("Unterminated") and error.pos < len(self._text) - _LONGEST_TOKEN


def _syntax(reason: str) -> str:
    return f"not JSON ({reason}); the file may be cut short: fetch it again"


class _Utf8File:
    """A file that is decoded while it is read, without a byte order mark."""

    def __init__(self, file: IO[bytes], error: Callable[[str, str], UserError]) -> None:
        self._file, self._error = file, error
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes_read, self._ended = 0, False

    def read(self, size: int) -> str:
        """Return some text of about `size` bytes; none at the end of the file.

        Raises:
          UserError: the file is not UTF-8.
        """
        while not self._ended:
            data = self._file.read(size)
            self._ended = not data
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                where = f" (byte {self._bytes_read + error.start} or just before)"
                raise self._error(where, "is not UTF-8; convert the file") from None
            self._bytes_read += len(data)
            if text:
                return text
        return ""
