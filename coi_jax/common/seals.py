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


def seal(value: Mapping[str, Any]) -> Object:
    """Return an object with the hash of all else in it as the last value."""
    body = _without(value, DIGEST)
    return {**body, DIGEST: files.digest(body)}


def unseal(value: Mapping[str, Any], field: str, place: object, hint: str = "restore it", *, strict: bool) -> Object:
    """Return an object without its hash.

    Args:
      value: as it was read.
      field: the name of the file in an error.
      place: of the object, as the path of its file.
      hint: what to do where it was changed.
      strict: whether one without a hash, as earlier versions wrote some, is refused too.

    Raises:
      UserError: it is another object than was written.
    """
    body = _without(value, DIGEST)
    if (strict or DIGEST in value) and value.get(DIGEST) != files.digest(body):
        raise UserError(field, place, f"was changed since it was written; {hint}")
    return body


def write_sealed(path: PathLike, value: Mapping[str, Any], field: str = "out") -> None:
    """Write an object as indented JSON, atomically, with its hash as the last value; `field` is as in `write_json`."""
    files.write_json(path, seal(value), field)


def read_sealed(path: PathLike, field: str = "file") -> Object:
    """Read the object of a JSON file, without its hash.

    Raises:
      UserError: the file holds no object, or another one than was written.
    """
    return unseal(files.read_object(path, field), field, path, strict=False)


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
    body = _without(row, CHECKSUM)
    if row.get(CHECKSUM) not in (None, _checksum(body)):
        raise UserError(field, place, f"was changed since it was written; {hint}")
    return body


def _without(value: Mapping[str, Any], name: str) -> Object:
    return {key: part for key, part in value.items() if key != name}


def _checksum(row: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(row, sort_keys=True).encode()):08x}"
