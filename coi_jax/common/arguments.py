"""The check of what a program gives to the Python API, by the annotations of its functions."""

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import HALF_A_PAIR, is_utf8
from coi_jax.common.limits import LARGEST_INTEGER

P = ParamSpec("P")
R = TypeVar("R")

# Types are built when a function is first called, so that --help waits for none of them.
_CONFIG = pydantic.ConfigDict(strict=True, arbitrary_types_allowed=True, defer_build=True)


def _as_int(value: Any) -> Any:
    """Return an integer of NumPy as one of Python."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value


def _as_utf8(text: str) -> str:
    if not is_utf8(text):
        raise ValueError(HALF_A_PAIR)
    return text


Text = Annotated[str, AfterValidator(_as_utf8)]  # what a file can hold
Count = Annotated[int, BeforeValidator(_as_int), Field(ge=1, le=LARGEST_INTEGER)]
Seed = Annotated[int, BeforeValidator(_as_int), Field(ge=0)]


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a public function by its annotations; the function gets them as they were given.

    An argument of another type, or out of the bounds of its annotation, raises UserError, which names the argument, the
    value and what it should be. No type is converted into another. Arguments that are missing, or that the function
    does not have, are a TypeError, as everywhere in Python.
    """

    @functools.wraps(function)
    def nothing(*_args: P.args, **_kwargs: P.kwargs) -> None:
        return None

    check = pydantic.validate_call(config=_CONFIG)(nothing)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            check(*args, **kwargs)
        except pydantic.ValidationError as error:
            names = list(inspect.signature(function).bind(*args, **kwargs).signature.parameters)
            raise _user_error(names, error.errors(include_url=False)) from None
        return function(*args, **kwargs)

    return call


def checked_fields(kind: type[R]) -> type[R]:
    """Check the fields of a dataclass, when it is made, as `checked` does arguments."""
    kind.__init__ = checked(kind.__init__)  # type: ignore[method-assign]
    return kind


def _user_error(names: list[str], errors: Sequence[Mapping[str, Any]]) -> UserError:
    """Return the error about the first argument that is wrong.

    Args:
      names: of the parameters, in their order.
      errors: pydantic's; several of one argument where it may be of several types.
    """
    places = [_place(names, error) for error in errors if error["loc"][0] == errors[0]["loc"][0]]
    deepest = max(places, key=len)  # of the alternatives, the one that the value comes closest to
    found = [error for place, error in zip(places, errors, strict=False) if place == deepest]
    hints = dict.fromkeys(_hint(error) for error in found)
    return UserError(deepest, found[0]["input"], " or ".join(hints))


def _place(names: list[str], error: Mapping[str, Any]) -> str:
    """Return where in the arguments an error is, as `texts[3]`."""
    argument, *inside = error["loc"]
    name = names[argument] if isinstance(argument, int) else argument
    return name + "".join(f"[{index}]" for index in inside if isinstance(index, int))


def _hint(error: Mapping[str, Any]) -> str:
    """Return pydantic's message as the part of ours that says what the value should be."""
    message = str(error["msg"]).removeprefix("Value error, ")
    return message.replace("Input should", "should").replace(" after validation", "")
