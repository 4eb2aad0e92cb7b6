"""The values of command lines: Python literals, for options as for the fields of configs."""

import ast
import contextlib
from typing import Any, TypeVar

Number = TypeVar("Number", int, float)


def read_literal(text: str) -> Any:
    """Read a Python literal, as `3`, `1e-4` or `(1, 2)`; raise ValueError where the text is none."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, MemoryError, RecursionError) as error:  # the latter two where it is nested too deeply
        raise ValueError(str(error)) from None


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
