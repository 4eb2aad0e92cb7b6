"""Schemas that pydantic validates: the base of all configs, and the check of a JSON value against one."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import AfterValidator, Field

from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import HALF_A_PAIR, is_utf8
from coi_jax.common.limits import LARGEST_INTEGER

Model = TypeVar("Model", bound=pydantic.BaseModel)
Share = Annotated[float, Field(ge=0, lt=1)]


def _not_empty(folder: str) -> str:
    if not folder:
        raise ValueError("is empty; name a folder")
    return folder


Folder = Annotated[str, AfterValidator(_not_empty)]  # of which the name is empty where a variable of a shell is not set


class Section(pydantic.BaseModel):
    """A group of fields; frozen, and nothing besides them is allowed. Numbers are finite."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @pydantic.field_validator("*")
    @classmethod
    def _can_be_stored(cls, value: Any) -> Any:
        """Reject integers that arrays of 32 bits, as counters of steps, cannot hold, and text that no file can."""
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError(f"should be at most {LARGEST_INTEGER:,}")
        if not all(map(is_utf8, _texts(value))):
            raise ValueError(HALF_A_PAIR)
        return value


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in the value of a field, but those in sections, which check their own."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _texts(part)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of sections within one another by their dotted names, which begin with `prefix`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def check_value(schema: type[Model], value: Any, field: str, where: object, fix: str = "correct it") -> Model:
    """Return a JSON value as its schema has it; no type is converted into another.

    Args:
      schema: of the value.
      value: as it was read.
      field: the name of the value in an error.
      where: where it was read from.
      fix: what the user can do about a value of another schema.

    Raises:
      UserError: the value has not this schema; it names the first place that differs.
    """
    try:
        return schema.model_validate(value, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "value"
        reason = first["msg"].replace("Input should", "should")
        raise UserError(field, where, f"{place}: {reason}; {fix}") from None
