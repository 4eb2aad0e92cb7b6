"""The values of command lines: Python literals, for options as for the fields of configs."""

import ast
import contextlib
from typing import Any, TypeVar

Number = TypeVar("Number", int, float)


class DoubledKeyError(ValueError):
    """A dictionary that has a key twice, of which Python would keep the last one."""


def read_literal(text: str) -> Any:
    """Read a Python literal, as `3`, `1e-4` or `(1, 2)`.

    Raises:
      DoubledKeyError: a dictionary has a key twice.
      ValueError: the text is no literal.
    """
    try:
        tree = ast.parse(text.lstrip(" \t"), mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                _check_keys(node)
        return ast.literal_eval(tree)
    except (SyntaxError, MemoryError, RecursionError) as error:  # the latter two where it is nested too deeply
        raise ValueError(str(error)) from None


def _check_keys(node: ast.Dict) -> None:
    names = [ast.unparse(key) for key in node.keys if key is not None]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise DoubledKeyError(f"has the key {doubled[0]} twice")


def read_number(kind: type[Number], text: str) -> Number:
    """Read a finite number as a field of a config is read.

    Args:
      kind: int or float.
      text: of the number.

    Raises:
      ValueError: the text is no number of this kind.
    """
    import pydantic  # takes longer than the help of a command

    value: Any = text
    with contextlib.suppress(ValueError):
        value = read_literal(text)
    if isinstance(value, bool):  # pydantic reads 1 and 0
        raise ValueError(f"{text} is no number")
    return pydantic.TypeAdapter(kind, config=pydantic.ConfigDict(allow_inf_nan=False)).validate_python(value)
