"""Overrides of config fields by dotted names, as `--config.train.log_every=5` gives them.

Where a field holds one of several sections (a tagged union), its tag says which. An override of the tag drops the
fields that the chosen section does not have; `--config.vocabulary=bytes` is short for `--config.vocabulary.kind=bytes`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from coi_jax.common.errors import UserError, nearest
from coi_jax.common.literals import DoubledKeyError, read_literal
from coi_jax.common.schema import Section
from coi_jax.config.unions import Place, hint_of_others, place_of, union_members


def override(values: dict[str, Any], overrides: Mapping[str, Any], schema: type[Section]) -> None:
    """Set dotted fields of a nested dict in place; tags of unions come first, whatever the order they are given in.

    Text is read as a Python literal (`3`, `1e-4`, `(1, 2)`, `None`) unless its field holds text.

    Args:
      values: of a config, nested.
      overrides: values by dotted names.
      schema: what the config must hold.

    Raises:
      UserError: there is no such field (the nearest name is given), or it stands in a section that is None.
    """
    top = Place((schema,), None)
    for name, value in sorted(overrides.items(), key=lambda item: not _sets_tag(item[0].split("."), top)):
        _override(values, name, value, top)


def _override(values: dict[str, Any], name: str, value: Any, place: Place) -> None:
    keys = name.split(".")
    for depth, key in enumerate(keys):
        info = _field(place, place.section(values), keys[: depth + 1], name, value)
        if depth == len(keys) - 1:
            _set(values, place, key, _parse(name, value, info), place_of(info))
            return
        place, values = place_of(info), _inside(values.get(key), keys[: depth + 1], name, value)
        if not place.options:  # a plain mapping, as an optimizer's options
            values[".".join(keys[depth + 1 :])] = _literal(name, value)
            return


def _field(place: Place, section: type[Section], keys: list[str], name: str, value: Any) -> FieldInfo:
    """Return a field of a section.

    Args:
      place: where the section stands.
      section: the one that was chosen of those that may.
      keys: the name of the field, in its parts.
      name: of the override.
      value: of the override.

    Raises:
      UserError: there is none; the nearest name is given, or the sections of the place that have the field.
    """
    if keys[-1] in section.model_fields:
        return section.model_fields[keys[-1]]
    known = [".".join([*keys[:-1], field]) for field in section.model_fields]
    hint = hint_of_others(place, section, keys) or nearest(".".join(keys), known)
    raise UserError(f"config.{name}", value, hint)


def _inside(found: Any, keys: list[str], name: str, value: Any) -> dict[str, Any]:
    """Return the nested values of a field; raise UserError where it has none."""
    if isinstance(found, dict):
        return found
    where = ".".join(["config", *keys])
    variant = ", or choose its variant that has it: --config FILE.py:lora" if where == "config.lora" else ""
    whole = f"--{where}=\"{{'{name.split('.')[-1]}': …}}\""
    is_none = f"{where} is None; set it in the config file, or whole, as {whole}{variant}"
    hint = is_none if found is None else f"{where} has no fields of its own"
    raise UserError(f"config.{name}", value, hint)


def _set(values: dict[str, Any], place: Place, key: str, value: Any, inner: Place) -> None:
    """Set a field, which may be the tag of its section, or hold a section that `value` names by its tag."""
    if key == place.tag:
        _choose(values, place, value)
    elif inner.tag and isinstance(value, str):
        values[key] = values.get(key) or {}
        _choose(values[key], inner, value)
    else:
        values[key] = value


def _choose(values: dict[str, Any], place: Place, choice: Any) -> None:
    """Set the tag of a union, and drop the fields that the chosen section does not have."""
    if place.tag == "unit" and values.get("unit") != choice:
        values.clear()  # a number of another unit would be another amount
    values[str(place.tag)] = choice
    for name in set(values) - set(place.section(values).model_fields):
        del values[name]


def _sets_tag(keys: list[str], place: Place) -> bool:
    """Return whether a dotted name is that of a union's tag, or of the union itself."""
    for key in keys:
        infos = [option.model_fields[key] for option in place.options if key in option.model_fields]
        if key == place.tag or not infos:
            return key == place.tag
        place = place_of(infos[0])
    return place.tag is not None


def _parse(name: str, value: Any, info: FieldInfo) -> Any:
    """Read text as what a field holds; raise UserError where a flag stands without the value that its field needs."""
    types = union_members(info.annotation)
    if isinstance(value, bool) and bool not in types:
        raise UserError(f"config.{name}", "no value", f"is no switch, and needs one; write --config.{name}=VALUE")
    if not isinstance(value, str) or str not in types:
        return _literal(name, value)
    return None if value == "None" and type(None) in types else value


def _literal(name: str, value: Any) -> Any:
    """Read text as a Python literal, where it is one; raise UserError where it only begins as one."""
    try:
        return read_literal(value) if isinstance(value, str) else value
    except DoubledKeyError as error:
        raise UserError(f"config.{name}", value, f"{error}; give it once") from None
    except ValueError:
        if value.lstrip().startswith(tuple("{[(")):
            hint = "cannot be read: write numbers, quoted texts, lists and dictionaries as Python has them"
            raise UserError(f"config.{name}", value, hint) from None
        return value
