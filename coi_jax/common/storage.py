"""Files and folders anywhere that fsspec reaches, local or in a bucket: whole or not there at all."""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import fsspec

from coi_jax.common import files
from coi_jax.common.errors import UserError

BLOCK = 2**24  # bytes that are compared or hashed at once


class Folder:
    """A folder anywhere that fsspec reaches: `runs/x`, `gs://bucket/x`, `memory://x`."""

    def __init__(self, url: str, field: str) -> None:
        """`field` is what an error calls the folder.

        Raises:
          UserError: there is no such folder, or nothing that can read its kind of URL.
        """
        self.url, self.field = url.rstrip("/"), field
        try:
            self.fs, self.path = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UserError(field, url, f"cannot be reached: {error}") from None

    def __str__(self) -> str:
        return self.url

    def at(self, name: str) -> str:
        """The path of a file."""
        return f"{self.path}/{name}"

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file, or the folder itself."""
        return bool(self.fs.exists(self.at(name) if name else self.path))

    def names(self) -> list[str]:
        """The names of the files; raises UserError where there is no such folder."""
        if not self.fs.isdir(self.path):
            raise UserError(self.field, self.url, "no such folder; check the path")
        found = self.fs.ls(self.path, detail=True)
        # Links, of which the hub's cache is made, are of another type than files.
        return sorted(entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] != "directory")

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return int(self.fs.size(self.at(name)))

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Some bytes of a file.

        Raises:
          UserError: it is not there.
        """
        try:
            return bytes(self.fs.cat_file(self.at(name), start=start, end=end))
        except FileNotFoundError:
            raise UserError(self.field, f"{self.url}/{name}", "no such file; the folder is not complete") from None

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object; raises UserError where there is none."""
        try:
            value = json.loads(self.read(name))
        except ValueError as error:
            hint = f"not JSON ({error}); it may be cut short: fetch it again"
            raise UserError(self.field, f"{self.url}/{name}", hint) from None
        if not isinstance(value, dict):
            raise UserError(self.field, f"{self.url}/{name}", "not a JSON object; fetch it again")
        return value

    def write(self, name: str, data: bytes) -> None:
        """Writes a small file."""
        with self.fs.open(self.at(name), "wb") as file:
            file.write(data)

    def identity(self, name: str, done: Callable[[], None] = lambda: None) -> str:
        """SHA-256 of a file's bytes, or the checksum that its store keeps of it; calls `done` after each block."""
        found = self.fs.info(self.at(name))
        for checksum in ("crc32c", "md5Hash", "ETag", "etag"):
            if checksum in found:
                return f"{checksum}:{found[checksum]}"
        digest = hashlib.sha256()
        with self.fs.open(self.at(name), "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                done()
        return digest.hexdigest()


def write_json(folder: Folder, name: str, value: Any) -> None:
    """Writes a JSON file."""
    folder.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


@contextlib.contextmanager
def written_aside(url: str, field: str) -> Iterator[Folder]:
    """A new folder beside `url` to write into; it takes the name `url` only when the block ends well.

    Raises:
      UserError: there is something at `url` already.
    """
    target = Folder(url, field)
    if target.exists():
        raise UserError(field, url, "is there already; name a new folder")
    parent, _, last = target.path.rpartition("/")
    aside = Folder(url, field)
    aside.path = f"{parent}/.{last}.{uuid.uuid4().hex[:8]}"
    try:
        aside.fs.makedirs(aside.path)
        yield aside
        aside.fs.mv(aside.path, target.path, recursive=True)
    except BaseException:
        if aside.exists():
            aside.fs.rm(aside.path, recursive=True)
        raise


def write_whole(system: Any, path: str, data: bytes) -> None:
    """Writes a file that appears whole: object stores write so by themselves."""
    if "file" in system.protocol:
        files.write_bytes(path, data)
    else:
        system.pipe_file(path, data)
