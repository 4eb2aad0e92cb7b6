"""The marker file of a complete stage: the counts of its rows, and the SHA-256 of each of its files.

A later run takes the stage as it is only where all of that is still so: whatever a disk, a copy or a person changed is
named, and never used.
"""

import sys
from typing import Annotated, Any

import pydantic
from etils import epath

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import JsonError, parse_json
from coi_jax.common.schema import check_value
from coi_jax.common.seals import unseal, write_sealed
from coi_jax.common.storage import as_path, is_there, list_files

FIELD, NAME, ROWS = "work folder", "whole.json", ".jsonl"
Counts = dict[str, Annotated[int, pydantic.Field(ge=0)]]


class _Marker(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    counts: Counts
    files: dict[str, str]


class _EarlierMarker(pydantic.RootModel[Counts]):
    """The counts alone, as versions without hashes wrote them."""


def write(folder: str, counts: dict[str, int]) -> None:
    """Mark a stage whose files are all written as complete.

    Args:
      folder: of the stage.
      counts: of its rows, by tag.
    """
    hashes = {name: files.sha256(as_path(folder) / name, FIELD) for name in _row_files(folder)}
    write_sealed(f"{folder}/{NAME}", {"counts": counts, "files": hashes})


def read(folder: str) -> dict[str, int] | None:
    """Return the counts of a complete stage, whose files are as they were written.

    Args:
      folder: of the stage.

    Returns:
      None where the stage is to be made: it is not complete, or of an earlier version, which kept no hashes.

    Raises:
      UserError: something in the folder is not as it was written.
    """
    path = as_path(f"{folder}/{NAME}")
    if not is_there(path):
        return None
    value = _parse(path, folder)
    if _is_earlier(value):
        line = f"{folder} is of an earlier version, without checksums; made again from the stored replies"
        print(f"note: {line}", file=sys.stderr, flush=True)
        return None
    marker = check_value(_Marker, unseal(value, FIELD, path, _hint(folder), strict=True), FIELD, path, _hint(folder))
    _check_files(folder, marker.files)
    return marker.counts


def _parse(path: epath.Path, folder: str) -> dict[str, Any]:
    try:
        value = parse_json(files.read_bytes(path, FIELD))
    except JsonError:
        value = None
    if not isinstance(value, dict):
        raise UserError(FIELD, path, f"holds no counts of rows; {_hint(folder)}")
    return value


def _is_earlier(value: dict[str, Any]) -> bool:
    try:
        return bool(_EarlierMarker.model_validate(value, strict=True).root)
    except pydantic.ValidationError:
        return False


def _check_files(folder: str, hashes: dict[str, str]) -> None:
    """Raise UserError where a stage has other files of rows than were written, which it names."""
    if odd := sorted(set(hashes) ^ set(_row_files(folder))):
        what = "is missing" if odd[0] in hashes else "is none of the stage's"
        raise UserError(FIELD, f"{folder}/{odd[0]}", f"{what}; {_hint(folder)}")
    for name, known in hashes.items():
        if files.sha256(as_path(folder) / name, FIELD) != known:
            raise UserError(FIELD, f"{folder}/{name}", f"was changed since it was written; {_hint(folder)}")


def _row_files(folder: str) -> list[str]:
    return [name for name in list_files(folder) if name.endswith(ROWS)]


def _hint(folder: str) -> str:
    return f"remove the folder {folder}, and the stage is made again from the replies that are stored"
