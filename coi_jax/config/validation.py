"""Configs that hold what their schema asks for, or one line that names the first field that does not."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from coi_jax.common.errors import UserError, nearest
from coi_jax.common.schema import Section
from coi_jax.config.unions import Place, hint_of_others, place_of, plain_types

_KEY = "[key]"  # ends pydantic's location of a key of a mapping, after the key
# What pydantic adds to the location of a value for the type of a union that it tried.
_UNION_TYPE = re.compile(r"(bool|int|float|str|none|literal\[.*\])$")

Schema = TypeVar("Schema", bound=Section)


def validate(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    """Return the config that a nested mapping spells.

    Args:
      schema: what it must hold.
      values: by field, nested.

    Raises:
      UserError: for the first field that is wrong.
    """
    _reject_booleans(values, Place((schema,), None), "config")
    try:
        return schema.model_validate(values)
    except pydantic.ValidationError as error:
        raise _user_error(error.errors(), schema) from None


def _reject_booleans(values: Mapping[str, Any], place: Place, path: str) -> None:
    """Raise UserError for True or False where a number is due; pydantic would read them as 1 and 0."""
    fields = place.section(values).model_fields
    for name, value in values.items():
        kinds = set(plain_types(fields[name].annotation)) if name in fields else set()
        if isinstance(value, bool) and bool not in kinds and {int, float} & kinds:
            raise UserError(f"{path}.{name}", value, "should be a number")
        if isinstance(value, Mapping) and name in fields and (inner := place_of(fields[name])).options:
            _reject_booleans(value, inner, f"{path}.{name}")


def _user_error(errors: Sequence[Any], schema: type[Section]) -> UserError:
    """Tell pydantic's first complaint as one line."""
    error = errors[0]
    path, place = _locate(error["loc"], Place((schema,), None))
    value = "missing" if error["type"] == "missing" else error["input"]
    alike = [other for other in errors if _locate(other["loc"], Place((schema,), None))[0] == path]
    hint = " or ".join(map(_hint, alike))  # one for each type of a union
    if error["type"] == "extra_forbidden":
        section = place.options[0]
        elsewhere = hint_of_others(place.wider, section, path) if place.wider else ""
        hint = elsewhere or nearest(path[-1], list(section.model_fields))
    elif error["type"] == "missing":
        hint = f"has no value; set it in the config file, or by --config.{'.'.join(path)}=VALUE"
    elif error["type"].startswith("union_tag"):
        path.append(str(place.tag))
        value = value.get(place.tag, "missing") if isinstance(value, dict) else value
        hint = nearest(str(value), place.all_tags)
    elif error["type"] in ("model_type", "model_attributes_type"):
        hint = f"is a section; set its fields, as --config.{'.'.join(path)}.FIELD=VALUE"
    elif error["type"] == "tuple_type":
        hint = f"""should be several values: --config.{".".join(path)}="('a', 'b')" """.rstrip()
    elif error["type"] == "value_error" and isinstance(value, dict) and not _is_plain(path, place):
        value = "its fields do not fit together"  # a whole section would hide the hint
    return UserError(".".join(["config", *path]), value, hint)


def _is_plain(path: Sequence[str], place: Place) -> bool:
    """Return whether a path, and the last section on it, lead to a plain value: a mapping that is no section."""
    info = place.options[0].model_fields.get(path[-1]) if path and place.options else None
    return info is not None and not place_of(info).options


def _hint(error: Any) -> str:
    message: str = error["msg"].removeprefix("Value error, ").replace("Input should", "should")
    message = message.removesuffix(", unable to interpret input")
    return f"as a key it {message}" if error["loc"][-1:] == (_KEY,) else message


def _locate(parts: tuple[str | int, ...], place: Place) -> tuple[list[str], Place]:
    """Return the dotted path that pydantic's location means, without tags and types of unions, and its last place."""
    path: list[str] = []
    for part in parts:
        options = [option for option in place.options if part in place.tags(option)]
        if options:
            place = Place((options[0],), None, place)
            continue
        if _UNION_TYPE.match(str(part)):
            continue
        if part == _KEY:
            path.pop()
            continue
        path.append(str(part))
        info = place.options[0].model_fields.get(str(part)) if place.options else None
        inner = place_of(info) if info else Place((), None)
        place = inner if inner.options else place
    return path, place
