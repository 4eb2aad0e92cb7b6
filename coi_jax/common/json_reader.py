r"""Strict reading of JSON text that somebody else wrote: one set of limits for every reader of the project.

Python's `json` takes more than JSON (`NaN`, a key twice, half of a surrogate pair that UTF-8 cannot write), and answers
some texts with other errors than its own (integers of thousands of digits, deep nesting). Here all of them are a
`JsonError`, whose message is one line with the reason and the fix. A byte order mark at the beginning is skipped. The
escape `\u0000` is a character like any other.

`coi_jax.common.files` reads JSON and JSON-lines files with it, `data_pipeline.json_array` arrays that do not fit in
memory.
"""

import collections
import json
import math
import re
from typing import Any

from coi_jax.common.errors import UserError, shorten

MAX_BYTES = 2**28  # of a text that is parsed at once
MAX_DEPTH = 100  # of lists and objects within one another
MAX_DIGITS = 300  # of a number: every such integer is a finite float too
SHORT = 7  # characters, fewer than `"\\ud800"` has
BYTE_ORDER_MARK = "\ufeff"
HALF_A_PAIR = "holds half of a surrogate pair, which UTF-8 cannot write; correct the text"
_CONTAINERS = (dict, list)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")  # also of whole pairs


class JsonError(ValueError):
    """A text that cannot be used as JSON: the message is the reason and the fix; `line` counts from 1."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


class NotJson(JsonError):
    """A text that is no JSON at all, such as one that is cut short."""


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
      JsonError: it is not UTF-8 or not JSON, or exceeds a limit of this module.
    """
    if len(data) > MAX_BYTES:
        raise JsonError(f"longer than {MAX_BYTES >> 20} MiB; split it")
    text = (data if isinstance(data, str) else decode_utf8(data)).removeprefix(BYTE_ORDER_MARK)
    try:
        value, end = parse_value(text, len(text) - len(text.lstrip(" \t\r\n")))
    except json.JSONDecodeError as error:
        raise NotJson(f"not JSON ({error.msg}); it may be cut short: write it again", error.lineno) from None
    if rest := text[end:].strip(" \t\r\n"):
        line = 1 + text.count("\n", 0, len(text.rstrip()) - len(rest))
        raise NotJson(f"not JSON (text after the value: {shorten(rest, 20)}); write it again", line)
    return value


def parse_field(data: bytes | str, field: str, where: str) -> Any:
    """Return the value of a JSON text that the user gave.

    Args:
      data: the text.
      field: its name in an error.
      where: where it comes from, such as a file.

    Raises:
      UserError: it cannot be used; see `parse_json`.
    """
    try:
        return parse_json(data)
    except JsonError as error:
        place = f"{where}:{error.line}" if error.line else where
        raise UserError(field, place, str(error)) from None


def parse_value(text: str, start: int, *, allow_surrogates: bool = False) -> tuple[Any, int]:
    """Return the JSON value that begins at `start`, and where it ends.

    Args:
      text: which may go on after the value.
      start: of the value, without white space before it.
      allow_surrogates: whether a string may hold half of a surrogate pair.

    Raises:
      json.JSONDecodeError: there is no complete value.
      JsonError: the value exceeds a limit of this module.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise _too_deep() from None
    if end - start <= SHORT:  # too short for either fault
        return value, end
    _check_depth(value, text.count("[", start, end) + text.count("{", start, end))
    if not allow_surrogates and _SURROGATE_ESCAPE.search(text, start, end) and not is_utf8(value):
        place = f"{_find_surrogate(value)}: " if isinstance(value, dict | list) else ""
        raise JsonError(f"{place}{HALF_A_PAIR}")
    return value, end


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8; raise JsonError where it is something else."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(f"byte {error.start} is not UTF-8; convert the file") from None


def json_kind(value: Any) -> str:
    """Return what JSON calls a value, with its article, for an error."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
    return "an array" if isinstance(value, list) else "an object"


def is_utf8(value: Any) -> bool:
    """Return whether all text in a JSON value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _find_surrogate(value: Any) -> str:
    """Return the keys and indices that lead to the first text that UTF-8 cannot write, as `Instances.0.input`."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            if not is_utf8([key, part]):
                inner = _find_surrogate(part)
                return f"{shorten(key, 100)}.{inner}" if inner else shorten(key, 100)
    return ""


def _check_depth(value: Any, containers: int) -> None:
    """Raise JsonError where lists and objects, of which there are at most `containers`, are nested too deep."""
    if containers <= MAX_DEPTH:
        return
    level, depth = [value] if type(value) in _CONTAINERS else [], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        inner = (whole.values() if type(whole) is dict else whole for whole in level)
        level = [part for parts in inner for part in parts if type(part) in _CONTAINERS]


def _too_deep() -> JsonError:
    return JsonError(f"is nested too deep: more than {MAX_DEPTH} levels; write it flatter")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = collections.Counter(key for key, _ in pairs).most_common(1)
        raise JsonError(f"has the key {shorten(twice, 100)} twice; remove one")
    return found


def _integer(digits: str) -> int:
    return int(_checked(digits))


def _float(digits: str) -> float:
    value = float(_checked(digits))
    if math.isinf(value):
        raise JsonError(f"the number {digits} is too large; correct it")
    return value


def _checked(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise JsonError(f"a number of {len(digits)} digits is too long; correct it, or quote it as a text")
    return digits


def _constant(name: str) -> Any:
    raise NotJson(f"{name} is not JSON; write null, or a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=_constant)
