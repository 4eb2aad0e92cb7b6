"""Safetensors files, read tensor by tensor and written tensor by tensor, in a local folder or in a bucket.

A file is 8 bytes with the length of a header, the header (JSON: dtype, shape and place of every tensor), and the
tensors' bytes. The library of the format maps whole local files into memory, and writes only what is in memory whole;
here one tensor is, whatever the file's size and wherever `fsspec` finds it (`gs://…` too). Nothing is ever unpickled.
"""

import contextlib
import hashlib
import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import fsspec
import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from coi_jax.errors import UserError
from coi_jax.progress import Bar

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH_BYTES = 8  # of a header's length, little-endian
LONGEST_HEADER = 100_000_000  # bytes; the library's own limit
BLOCK = 2**24  # bytes that are compared or hashed at once

Tensor = Shaped[np.ndarray, "..."]


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
            mend = f"not JSON ({error}); it may be cut short: fetch it again"
            raise UserError(self.field, f"{self.url}/{name}", mend) from None
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


class Entry(NamedTuple):
    """Where a tensor lies."""

    file: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int  # byte of the file
    end: int


class TensorFolder:
    """All tensors of a folder with one safetensors file, or with several and an index."""

    def __init__(self, folder: Folder) -> None:
        """Reads the headers.

        Raises:
          UserError: there are no such files, one is missing or cut short, or a tensor has a dtype that is not known.
        """
        self.folder = folder
        self.files = _files(folder)
        self.entries = {key: entry for name in self.files for key, entry in read_header(folder, name).items()}

    def read(self, key: str) -> Tensor:
        """A tensor; it cannot be written to."""
        entry = self.entries[key]
        data = self.folder.read(entry.file, entry.start, entry.end)
        return np.frombuffer(data, entry.dtype).reshape(entry.shape)

    def check_equal(self, first: str, second: str) -> None:
        """Raises UserError where two tensors differ, which are the same one in this network."""
        one, other = self.entries[first], self.entries[second]
        same = one[1:3] == other[1:3]
        for start in range(0, one.end - one.start if same else 0, BLOCK):
            parts = [self.folder.read(entry.file, entry.start + start, min(entry.start + start + BLOCK, entry.end))
                     for entry in (one, other)]  # fmt: skip
            same = same and parts[0] == parts[1]
        if not same:
            mend = "differ, though the config says that they are one; is tie_word_embeddings right?"
            raise UserError(self.folder.field, f"{self.folder}: {first} and {second}", mend)

    def identity(self) -> str:
        """A hash of all tensor files, names and contents."""
        blocks = sum(-(-self.folder.size(name) // BLOCK) for name in self.files)
        with Bar("hashing weights", blocks) as bar:
            parts = [f"{name} {self.folder.identity(name, bar.advance)}\n" for name in self.files]
        return hashlib.sha256("".join(parts).encode("utf-8")).hexdigest()


def _files(folder: Folder) -> list[str]:
    """The names of the tensor files: what the index names, else the single one."""
    names = folder.names()
    if INDEX in names:
        table = folder.read_json(INDEX).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise UserError(folder.field, f"{folder}/{INDEX}", "has no weight_map; fetch it again")
        absent = sorted(set(table.values()) - set(names))
        if absent:
            mend = f"names {', '.join(absent)}, not there; fetch the folder again"
            raise UserError(folder.field, f"{folder}/{INDEX}", mend)
        return sorted(set(table.values()))
    if SINGLE in names:
        return [SINGLE]
    pickled = any(name.endswith((".bin", ".pt", ".pth", ".msgpack", ".h5")) for name in names)
    mend = f"has neither {SINGLE} nor {INDEX}"
    if pickled:
        mend += "; its other weight files are never read: save it with safe_serialization=True"
    raise UserError(folder.field, folder.url, mend)


def read_header(folder: Folder, name: str) -> dict[str, Entry]:
    """The tensors of one file, by key; raises UserError where the file is no whole safetensors file."""
    size = folder.size(name)
    length = int.from_bytes(folder.read(name, 0, LENGTH_BYTES), "little")
    where, begin = f"{folder}/{name}", LENGTH_BYTES + length
    if size < LENGTH_BYTES or length > LONGEST_HEADER or begin > size:
        raise UserError(folder.field, where, f"is no whole safetensors file ({size} bytes); fetch it again")
    try:
        header = json.loads(folder.read(name, LENGTH_BYTES, begin))
        entries = {key: _entry(name, begin, value) for key, value in header.items() if key != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(folder.field, where, "has a header that is not of safetensors; fetch it again") from None
    for key, value in header.items():
        if key in entries and value["dtype"] not in DTYPES:
            mend = f"{key} is {value['dtype']}, of {', '.join(DTYPES)}; take the checkpoint in one of those"
            raise UserError(folder.field, where, mend)
    due = max((entry.end for entry in entries.values()), default=begin)
    if due > size:
        raise UserError(folder.field, where, f"is cut short: {size} of {due} bytes; fetch it again")
    return entries


def _entry(file: str, begin: int, value: Mapping[str, Any]) -> Entry:
    """A tensor's place; raises ValueError where its bytes are not as many as its shape asks for."""
    dtype, shape = DTYPES.get(value["dtype"], np.dtype(np.uint8)), tuple(map(int, value["shape"]))
    start, end = value["data_offsets"]
    if value["dtype"] in DTYPES and (start < 0 or end - start != math.prod(shape) * dtype.itemsize):
        raise ValueError(value)
    return Entry(file, dtype, shape, begin + start, begin + end)


class Spec(NamedTuple):
    """What a tensor will be."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(folder: Folder, specs: Iterable[Spec], read: Callable[[str], Tensor], largest: int) -> None:
    """Writes tensors into as few files as `largest` bytes a file allow, with an index where there are several.

    Args:
      folder: exists, and is empty.
      specs: in the order in which they are written.
      read: the tensor of a key; one at a time.
      largest: bytes of a file, unless one tensor alone is larger.
    """
    shards = list(_shards(specs, largest))
    table: dict[str, str] = {}
    with Bar("writing tensors", sum(map(len, shards))) as bar:
        for number, shard in enumerate(shards, 1):
            name = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            table |= {spec.key: name for spec in shard}
            with folder.fs.open(folder.at(name), "wb") as file:
                file.write(_header(shard))
                for spec in shard:
                    file.write(_bytes(read(spec.key), spec).data)
                    bar.advance(note=name)
    if len(shards) > 1:
        total = sum(spec.bytes for shard in shards for spec in shard)
        write_json(folder, INDEX, {"metadata": {"total_size": total}, "weight_map": table})


def _shards(specs: Iterable[Spec], largest: int) -> Iterator[list[Spec]]:
    shard: list[Spec] = []
    for spec in specs:
        if shard and sum(one.bytes for one in shard) + spec.bytes > largest:
            yield shard
            shard = []
        shard.append(spec)
    yield shard


def _header(shard: list[Spec]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # what transformers asks for
    start = 0
    for spec in shard:
        header[spec.key] = {
            "dtype": NAMES[spec.dtype],
            "shape": spec.shape,
            "data_offsets": [start, start + spec.bytes],
        }
        start += spec.bytes
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _bytes(tensor: Tensor, spec: Spec) -> Shaped[np.ndarray, " bytes"]:
    assert tensor.shape == spec.shape, spec
    packed = np.ascontiguousarray(tensor, spec.dtype)
    return packed.reshape(-1).view(np.uint8)


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
