"""Reads a JSON array one element at a time, so that a file need not fit in memory."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from coi_jax.common.errors import UserError

CHUNK_BYTES = 1 << 16
_WHITESPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


def read_array(path: Path, field: str = "file") -> Iterator[Any]:
    """Yields the elements of the JSON array in a UTF-8 file, in order.

    Raises:
      UserError: the file is missing, empty, not UTF-8, not one JSON array, or cut short; it names the element.
    """
    try:
        with open(path, "rb") as file:
            yield from _elements(_Window(file, path, field))
    except FileNotFoundError:
        raise UserError(field, path, "no such file; check the path") from None


class _Window:
    """The text of a file from the first character that is still needed on."""

    def __init__(self, file: IO[bytes], path: Path, field: str) -> None:
        self._file, self._path, self._field = file, path, field
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes_read = 0
        self.text, self.position, self.ended = "", 0, False

    def error(self, where: str, hint: str) -> UserError:
        return UserError(self._field, f"{self._path}{where}", hint)

    def more(self) -> None:
        """Drops what was read and appends at least as much text again as is held, or sets `ended`."""
        data = self._file.read(max(CHUNK_BYTES, len(self.text) - self.position))
        try:
            added = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            where = f" (byte {self._bytes_read + error.start} or just before)"
            raise self.error(where, "is not UTF-8; convert the file") from None
        self._bytes_read += len(data)
        self.text, self.position = self.text[self.position :] + added, 0
        self.ended = not data

    def peek(self) -> str:
        """The next character that is not white space, "" at the end of the file."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in _WHITESPACE:
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if self.ended:
                return ""
            self.more()

    def value(self, number: int) -> Any:
        """The JSON value at the position, which moves past it; `number` counts elements from 0."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
            except RecursionError:
                raise self.error(f" (row {number})", "is nested too deep to be a row; mend the file") from None
            except ValueError as error:
                if self.ended:
                    reason = getattr(error, "msg", str(error))
                    hint = f"not JSON ({reason}); the file may be cut short: fetch it again"
                    raise self.error(f" (row {number})", hint) from None
            else:
                # A number may go on in the next chunk ("1" as "1.5", "1." or "1e3"), so a value counts once something
                # stands after it that no number goes on with.
                if self.ended or (end < len(self.text) and self.text[end] not in ".eE"):
                    self.position = end
                    return value
            self.more()


def _elements(window: _Window) -> Iterator[Any]:
    first = window.peek()
    if not first:
        raise window.error("", "is empty; fetch it again")
    if first != "[":
        raise window.error("", "is not a JSON array of rows; check that it is a file of the release")
    window.position += 1
    number = 0
    separator = "]" if window.peek() == "]" else ","
    window.position += separator == "]"
    while separator == ",":
        window.peek()
        yield window.value(number)
        number += 1
        separator = _separator(window, number)
    if window.peek():
        raise window.error("", f"has text after its array of {number} rows; fetch it again")


def _separator(window: _Window, number: int) -> str:
    found = window.peek()
    if not found or found not in ",]":
        raise window.error(f" (after {number} rows)", "is cut short or not JSON; fetch it again")
    window.position += 1
    return found
