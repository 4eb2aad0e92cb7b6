"""Config files: Python whose `get_config()` lists every field (ml_collections), with overrides by dotted names.

What a config must hold is a pydantic model; the first field that is wrong is told in one line.
"""

import importlib.util
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import ml_collections
import pydantic

from coi_jax.common import files
from coi_jax.common.errors import UserError, nearest

Schema = TypeVar("Schema", bound=pydantic.BaseModel)


def read(path: files.PathLike) -> dict[str, Any]:
    """The values of a config file, `.py` or `.json`.

    Raises:
      UserError: it cannot be read.
    """
    return files.read_json(path, "config") if Path(path).suffix == ".json" else _get_config(Path(path))


def _get_config(path: Path) -> dict[str, Any]:
    module = load_module(path, "config", "configs/")
    try:
        config: ml_collections.ConfigDict = module.get_config()
    except Exception as error:
        raise UserError("config", path, f"{type(error).__name__}: {error}") from None
    return config.to_dict()


def load_module(path: Path, field: str, examples: str) -> ModuleType:
    """The module that a Python file is; `field` is what the user named it for, `examples` the folder of others.

    Raises:
      UserError: there is none, or it raises.
    """
    if not path.is_file():
        raise UserError(field, path, f"no such file; see {examples}")
    spec = importlib.util.spec_from_file_location(f"coi_{field}", path)
    if spec is None or spec.loader is None:
        raise UserError(field, path, f"not a Python file; see {examples}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(field, path, f"{type(error).__name__}: {error}") from None
    return module


def override(values: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Sets dotted fields of a nested dict, which must already have them.

    Raises:
      UserError: there is no such field; the nearest name is given.
    """
    for name, value in overrides.items():
        _override(values, name, value)


def _override(values: dict[str, Any], name: str, value: Any) -> None:
    *sections, field = name.split(".")
    for depth, key in enumerate([*sections, field]):
        if key not in values or (depth < len(sections) and not isinstance(values[key], dict)):
            known = [".".join([*sections[:depth], other]) for other in values]
            raise UserError(f"config.{name}", value, nearest(".".join([*sections[:depth], key]), known))
        if depth < len(sections):
            values = values[key]
    values[field] = value


def validate(
    schema: type[Schema], values: Mapping[str, Any], unions: Mapping[str, type[pydantic.BaseModel]] | None = None
) -> Schema:
    """The config that a nested mapping spells.

    Args:
      schema: what it must hold.
      values: by field, nested.
      unions: for a field that may have one of several schemas, the one that these values are meant for.

    Raises:
      UserError: for the first field that is wrong.
    """
    try:
        return schema.model_validate(values)
    except pydantic.ValidationError as error:
        raise _user_error(error.errors()[0], schema, unions or {}) from None


def _user_error(
    error: Any, schema: type[pydantic.BaseModel], unions: Mapping[str, type[pydantic.BaseModel]]
) -> UserError:
    """Pydantic's first complaint as one line."""
    path, section = [], schema
    parts = iter(error["loc"])
    for part in parts:
        path.append(str(part))
        if part in unions:
            section = unions[part]
            next(parts, None)  # the union's tag, which is not a field's name
        elif part in section.model_fields:
            section = _section(section.model_fields[part].annotation) or section
    hint = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        hint = nearest(path[-1], list(section.model_fields))
    return UserError(".".join(["config", *path]), "missing" if error["type"] == "missing" else error["input"], hint)


def _section(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The section that a field holds, alone or in a tuple; None where it holds plain values."""
    for kind in (annotation, *typing.get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
            return kind
    return None
