"""Safetensors files, read tensor by tensor and written tensor by tensor, in a local folder or in a bucket.

A file is 8 bytes with the length of a header, the header (JSON: dtype, shape and place of every tensor), and the
tensors' bytes. The safetensors library reads local files; it neither reads from buckets nor writes tensors one by one,
so byte ranges of remote files are read here, and files are written here with one tensor in memory at a time. Nothing is
ever unpickled.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.progress import Bar
from coi_jax.common.storage import BLOCK, Folder, PathLike, as_path, is_local

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
Tensor = Shaped[np.ndarray, "..."]


class TensorEntry(NamedTuple):
    """The position, shape and dtype of a tensor."""

    file: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int  # byte of the file
    end: int


class TensorFolder:
    """All tensors of a folder with one safetensors file, or with several and an index."""

    def __init__(self, folder: Folder) -> None:
        """Read the headers.

        Raises:
          UserError: there are no such files, one is missing or truncated, or a tensor has an unknown dtype.
        """
        self.folder = folder
        self.files = _files(folder)
        self.entries = {key: entry for name in self.files for key, entry in read_header(folder, name).items()}

    def read(self, key: str) -> Tensor:
        """Return a tensor: from a local file by the memory map of the safetensors library, else from a byte range."""
        entry = self.entries[key]
        if is_local(self.folder.url):
            with safe_open(self.folder.at(entry.file), framework="numpy") as file:
                tensor: Tensor = file.get_tensor(key)
                return tensor
        data = self.folder.read(entry.file, entry.start, entry.end)
        return np.frombuffer(data, entry.dtype).reshape(entry.shape)

    def check_equal(self, first: str, second: str) -> None:
        """Raise UserError where two tensors differ that the network ties."""
        one, other = self.entries[first], self.entries[second]
        same = one[1:3] == other[1:3]
        for start in range(0, one.end - one.start if same else 0, BLOCK):
            parts = [
                self.folder.read(entry.file, entry.start + start, min(entry.start + start + BLOCK, entry.end))
                for entry in (one, other)
            ]
            same = same and parts[0] == parts[1]
        if not same:
            hint = "differ, though the config says that they are one; is tie_word_embeddings right?"
            raise UserError(self.folder.field, f"{self.folder}: {first} and {second}", hint)

    def identity(self) -> str:
        """Return a hash of all tensor files, names and contents."""
        blocks = sum(-(-self.folder.size(name) // BLOCK) for name in self.files)
        with Bar("hashing weights", blocks) as bar:
            parts = [f"{name} {self.folder.identity(name, bar.advance)}\n" for name in self.files]
        return hashlib.sha256("".join(parts).encode("utf-8")).hexdigest()


def _files(folder: Folder) -> list[str]:
    """Return the names of the tensor files: those in the index, else the single one."""
    names = folder.names()
    if INDEX in names:
        table = folder.read_json(INDEX).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise UserError(folder.field, f"{folder}/{INDEX}", "has no weight_map; fetch it again")
        absent = sorted(set(table.values()) - set(names))
        if absent:
            hint = f"names {', '.join(absent)}, not there; fetch the folder again"
            raise UserError(folder.field, f"{folder}/{INDEX}", hint)
        return sorted(set(table.values()))
    if SINGLE in names:
        return [SINGLE]
    pickled = any(name.endswith((".bin", ".pt", ".pth", ".msgpack", ".h5")) for name in names)
    hint = f"has neither {SINGLE} nor {INDEX}"
    if pickled:
        hint += "; its other weight files are never read: save it with safe_serialization=True"
    raise UserError(folder.field, folder.url, hint)


def read_header(folder: Folder, name: str) -> dict[str, TensorEntry]:
    """Return the tensors of one file, by key; raise UserError where it is not a complete safetensors file."""
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
            hint = f"{key} is {value['dtype']}, of {', '.join(DTYPES)}; take the checkpoint in one of those"
            raise UserError(folder.field, where, hint)
    due = max((entry.end for entry in entries.values()), default=begin)
    if due > size:
        raise UserError(folder.field, where, f"is cut short: {size} of {due} bytes; fetch it again")
    if is_local(folder.url):
        check_with_library(folder, name)
    return entries


def check_with_library(folder: Folder, name: str) -> None:
    """Raise UserError where the safetensors library does not take a local file, say for tensors that overlap."""
    try:
        with safe_open(folder.at(name), framework="numpy"):
            pass
    except SafetensorError as error:
        hint = f"is not a valid safetensors file ({error}); fetch it again"
        raise UserError(folder.field, f"{folder}/{name}", hint) from None


def _entry(file: str, begin: int, value: Mapping[str, Any]) -> TensorEntry:
    """Return a tensor's entry; raise ValueError where its bytes are not as many as its shape needs."""
    dtype, shape = DTYPES.get(value["dtype"], np.dtype(np.uint8)), tuple(map(int, value["shape"]))
    start, end = value["data_offsets"]
    if value["dtype"] in DTYPES and (start < 0 or end - start != math.prod(shape) * dtype.itemsize):
        raise ValueError(value)
    return TensorEntry(file, dtype, shape, begin + start, begin + end)


class TensorSpec(NamedTuple):
    """The key, shape and dtype of a tensor that will be written."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """Return the size of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(
    folder: PathLike, specs: Iterable[TensorSpec], read: Callable[[str], Tensor], max_shard_bytes: int
) -> None:
    """Write tensors into as few files as the limit allows, with an index where there are several.

    Args:
      folder: an empty folder.
      specs: the tensors, in the order in which they are written.
      read: returns the tensor of a key; called for one at a time.
      max_shard_bytes: the limit of a file, unless one tensor alone is larger.
    """
    shards = list(_shards(specs, max_shard_bytes))
    table: dict[str, str] = {}
    with Bar("writing tensors", sum(map(len, shards))) as bar:
        for number, shard in enumerate(shards, 1):
            name = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            table |= {spec.key: name for spec in shard}
            with (as_path(folder) / name).open("wb") as file:
                file.write(_header(shard))
                for spec in shard:
                    file.write(_bytes(read(spec.key), spec).data)
                    bar.advance(note=name)
    if len(shards) > 1:
        total = sum(spec.bytes for shard in shards for spec in shard)
        files.write_json(as_path(folder) / INDEX, {"metadata": {"total_size": total}, "weight_map": table})


def _shards(specs: Iterable[TensorSpec], max_shard_bytes: int) -> Iterator[list[TensorSpec]]:
    shard: list[TensorSpec] = []
    for spec in specs:
        if shard and sum(one.bytes for one in shard) + spec.bytes > max_shard_bytes:
            yield shard
            shard = []
        shard.append(spec)
    yield shard


def _header(shard: list[TensorSpec]) -> bytes:
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


def _bytes(tensor: Tensor, spec: TensorSpec) -> Shaped[np.ndarray, " bytes"]:
    assert tensor.shape == spec.shape, spec
    packed = np.ascontiguousarray(tensor, spec.dtype)
    return packed.reshape(-1).view(np.uint8)
