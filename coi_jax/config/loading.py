"""Config files: Python whose `get_config()` returns an ml_collections `ConfigDict`, or JSON."""

import importlib.util
import inspect
import re
import shlex
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections

from coi_jax.common.errors import UserError
from coi_jax.common.seals import read_sealed
from coi_jax.common.storage import PathLike, as_path, local_reader, open_input
from coi_jax.common.wording import with_article

_LIBRARIES = re.compile(r"^<|/(site-packages|lib/python[0-9.]+)/")  # whose frames a traceback has too
ROOT = Path(__file__).parents[2]  # where `configs.base` is imported from


def read(path: PathLike) -> dict[str, Any]:
    """Return the values of a config file: `FILE.py`, `FILE.py:ARGUMENT` or `FILE.json`.

    Raises:
      UserError: it cannot be read, or takes no such argument.
    """
    name, colon, argument = str(path).partition(".py:")
    if not str(path) or (colon and not argument):
        hint = "is empty; name a file" if not str(path) else "names no argument; write FILE.py, or FILE.py:ARGUMENT"
        raise UserError("config", repr(str(path)), hint)
    if argument:
        return _get_config(f"{name}.py", argument)
    return read_sealed(path, "config") if str(path).endswith(".json") else _get_config(path, None)


def _get_config(path: PathLike, argument: str | None) -> dict[str, Any]:
    get_config = getattr(load_module(path, "config", "configs/"), "get_config", None)
    if get_config is None:
        raise UserError("config", path, "has no get_config(); see configs/")
    if argument is not None and not inspect.signature(get_config).parameters:
        raise UserError("config", f"{path}:{argument}", f"takes no argument; write --config={shlex.quote(str(path))}")
    try:
        config = get_config() if argument is None else get_config(argument)
    except UserError:
        raise
    except BaseException as error:
        _reraise_interrupt(error)
        raise UserError("config", f"{path}:{argument}" if argument else path, reason(error)) from None
    if not isinstance(config, ml_collections.ConfigDict):
        found = with_article(type(config).__name__)
        hint = f"get_config() returns {found}; return an ml_collections ConfigDict, see configs/base.py"
        raise UserError("config", path, hint)
    values: dict[str, Any] = config.to_dict()
    return values


def load_module(path: PathLike, field: str, examples: str) -> ModuleType:
    """Import a Python file that a user named.

    Args:
      path: of the file, local or in a bucket.
      field: what the user named it for, as "config".
      examples: the folder that has others of its kind, for the error.

    Raises:
      UserError: there is no such file, or importing it raises.
    """
    place = as_path(path, field)
    if place.is_dir():
        raise UserError(field, path, f"is a folder; name a file, as those in {examples}")
    if not place.exists():
        raise UserError(field, path, f"no such file; see {examples}")
    open_input(place, field).close()  # or an error: importing a pipe would wait
    with local_reader(place) as file:
        return _import(file, path, field, examples)


def _import(file: Path, path: PathLike, field: str, examples: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"coi_{field}", file)
    if spec is None or spec.loader is None:
        raise UserError(field, path, f"not a Python file; see {examples}")
    module = importlib.util.module_from_spec(spec)
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        _reraise_interrupt(error)
        raise UserError(field, path, reason(error)) from None
    return module


def reason(error: BaseException) -> str:
    """Return what a file raised, and where; a ValueError is how it refuses its argument, in words that need no name."""
    try:
        text = str(error)
    except Exception:
        text = ""
    if text and type(error) is ValueError:
        return text
    name = type(error).__name__
    return (f"{name}: {text}" if text else f"raises {name}") + _place(error)


def _place(error: BaseException) -> str:
    """Return the line of the user's file that an error comes from; empty where that is not known."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and not _LIBRARIES.search(frame.filename)]
    return f" (line {own[-1].lineno} of {Path(own[-1].filename).name})" if own else ""


def _reraise_interrupt(error: BaseException) -> None:
    """Raise what the user's Ctrl-C was made into; all else that a file raises is a fault of the file."""
    if isinstance(error, KeyboardInterrupt):
        raise error
