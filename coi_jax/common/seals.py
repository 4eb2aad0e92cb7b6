"""Checksums that stand in the JSON that they are of, so that a reader notices what a disk or a copy changed.

A file has the SHA-256 of all else in it; a row of JSON lines, of which there are many, a CRC-32. What has none, as the
files of earlier versions, is taken as it is.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike

DIGEST, CHECKSUM = "sha256", "crc32"
Object = dict[str, Any]


def write_sealed(path: PathLike, value: Mapping[str, Any], field: str = "out") -> None:
    """Write an object as indented JSON, atomically, with its hash as the last value; `field` is as in `write_json`."""
    files.write_json(path, {**value, DIGEST: files.digest(value)}, field)


def read_sealed(path: PathLike, field: str = "file") -> Object:
    """Read the object of a JSON file, without its hash.

    Raises:
      UserError: the file holds no object, or another one than was written.
    """
    value = files.read_object(path, field)
    digest = value.pop(DIGEST, None)
    if digest not in (None, files.digest(value)):
        raise UserError(field, path, "was changed since it was written; restore it")
    return value


def seal_row(row: Mapping[str, Any]) -> Object:
    """Return a row of JSON lines with its checksum as the last value."""
    return {**row, CHECKSUM: _checksum(row)}


def unseal_row(row: Mapping[str, Any], field: str, place: object, hint: str = "restore the line") -> Object:
    """Return a row of JSON lines without its checksum.

    Args:
      row: as it was read.
      field: the name of the file in an error.
      place: of the row, as `metrics.jsonl:3`.
      hint: what to do where it was changed.

    Raises:
      UserError: it is another row than was written.
    """
    body = {name: value for name, value in row.items() if name != CHECKSUM}
    if row.get(CHECKSUM) not in (None, _checksum(body)):
        raise UserError(field, place, f"was changed since it was written; {hint}")
    return body


def _checksum(row: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(row, sort_keys=True).encode()):08x}"
