"""Safetensors files, read tensor by tensor and written tensor by tensor, in a local folder or in a bucket.

A file is 8 bytes with the length of a header, the header (JSON: dtype, shape and place of every tensor), and the
tensors' bytes. The safetensors library reads local files; it neither reads from buckets nor writes tensors one by one,
so byte ranges of remote files are read here, and files are written here with one tensor in memory at a time. Nothing is
ever unpickled.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import ml_dtypes
import numpy as np
import pydantic
from jaxtyping import Shaped
from pydantic import Field
from safetensors import SafetensorError, safe_open

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import JsonError, parse_json
from coi_jax.common.progress import Bar
from coi_jax.common.storage import BLOCK, Folder, PathLike, as_path, is_local
from coi_jax.runs.finite import cast_finite

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NUMBERED = re.compile(r"model-[0-9]{5}-of-[0-9]{5}\.safetensors")
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH_BYTES = 8  # of a header's length, little-endian
LARGEST = 2**60  # elements of a tensor
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
        self.entries: dict[str, TensorEntry] = {}
        self._parts: set[str] = set()
        for name in self.files:
            entries = read_header(folder, name)
            if twice := self.entries.keys() & entries.keys():
                hint = f"{min(twice)} is in {self.entries[min(twice)].file} too; fetch the folder again"
                raise UserError(folder.field, f"{folder}/{name}", hint)
            self.entries |= entries

    def read(self, key: str) -> Tensor:
        """Return a tensor: from a local file by the memory map of the safetensors library, else from a byte range."""
        entry = self.entries[key]
        if is_local(self.folder.path) and key not in self._parts:
            with safe_open(self.folder.at(entry.file), framework="numpy") as file:
                tensor: Tensor = file.get_tensor(key)
                return tensor
        data = self.folder.read(entry.file, entry.start, entry.end)
        return np.frombuffer(data, entry.dtype).reshape(entry.shape)

    def split(self, key: str, rows: Mapping[str, int]) -> None:
        """Replace a tensor's entry by one for each of its parts, which are its rows one after another.

        Args:
          key: of the tensor; nothing is done where the parts have not as many rows together.
          rows: of each part, by its key.
        """
        entry = self.entries[key]
        if not entry.shape or entry.shape[0] != sum(rows.values()):
            return
        del self.entries[key]
        size, start = (entry.end - entry.start) // entry.shape[0], entry.start
        for part, count in rows.items():
            shape = (count, *entry.shape[1:])
            self.entries[part] = TensorEntry(entry.file, entry.dtype, shape, start, start + count * size)
            start += count * size
        self._parts |= rows.keys()

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
    """Return the names of the tensor files: the single one, else those in the index, else a complete numbered set.

    An index may be older than the files beside it. What is in a file is read from its own header.
    """
    names = folder.names()
    if SINGLE in names:
        return [SINGLE]
    numbered = _numbered_set(names)
    if INDEX in names:
        table = folder.read_json(INDEX).get("weight_map")
        if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
            raise UserError(folder.field, f"{folder}/{INDEX}", "has no weight_map; fetch it again")
        absent = sorted(set(table.values()) - set(names))
        if absent and not numbered:
            hint = f"names {', '.join(absent)}, not there; fetch the folder again"
            raise UserError(folder.field, f"{folder}/{INDEX}", hint)
        return numbered if absent else sorted(set(table.values()))
    if numbered:
        return numbered
    pickled = any(name.endswith((".bin", ".pt", ".pth", ".msgpack", ".h5")) for name in names)
    hint = f"has neither {SINGLE} nor {INDEX}"
    if pickled:
        hint += "; its other weight files are never read: save it with safe_serialization=True"
    raise UserError(folder.field, folder.url, hint)


def _numbered_set(names: Sequence[str]) -> list[str]:
    """Return the files `model-00001-of-0000N.safetensors` to N, where all are there; none where one is missing."""
    found = [name for name in names if NUMBERED.fullmatch(name)]
    totals = {name.rpartition("-of-")[2] for name in found}
    is_whole = len(totals) == 1 and len(found) == int(totals.pop().partition(".")[0])
    return sorted(found) if is_whole else []


def read_header(folder: Folder, name: str) -> dict[str, TensorEntry]:
    """Return the tensors of one file, by key; raise UserError where it is not a complete safetensors file."""
    size = folder.size(name)
    length = int.from_bytes(folder.read(name, 0, LENGTH_BYTES), "little")
    where, begin = f"{folder}/{name}", LENGTH_BYTES + length
    if size < LENGTH_BYTES or length > LONGEST_HEADER or begin > size:
        raise UserError(folder.field, where, f"is no whole safetensors file ({size} bytes); fetch it again")
    try:
        header = parse_json(folder.read(name, LENGTH_BYTES, begin))
        entries = {key: _entry(name, begin, value) for key, value in header.items() if key != "__metadata__"}
    except JsonError as error:
        hint = f"has a header that is not of safetensors ({str(error).partition(';')[0]}); fetch it again"
        raise UserError(folder.field, where, hint) from None
    except (ValueError, AttributeError):
        raise UserError(folder.field, where, "has a header that is not of safetensors; fetch it again") from None
    for key, value in header.items():
        if key in entries and value["dtype"] not in DTYPES:
            hint = f"{key} is {value['dtype']}, of {', '.join(DTYPES)}; take the checkpoint in one of those"
            raise UserError(folder.field, where, hint)
    due = max((entry.end for entry in entries.values()), default=begin)
    if due > size:
        raise UserError(folder.field, where, f"is cut short: {size} of {due} bytes; fetch it again")
    _check_layout(entries, begin, size, folder.field, where)
    if is_local(folder.path):
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


class _Header(pydantic.BaseModel):
    """What a header says of one tensor."""

    dtype: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=32)]
    data_offsets: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


def _entry(file: str, begin: int, value: Any) -> TensorEntry:
    """Return a tensor's entry; raise ValueError where its bytes are not as many as its shape needs."""
    header = _Header.model_validate(value, strict=True)
    dtype = DTYPES.get(header.dtype, np.dtype(np.uint8))
    start, end = header.data_offsets
    if end < start or (header.dtype in DTYPES and end - start != math.prod(header.shape) * dtype.itemsize):
        raise ValueError(value)
    if math.prod(max(size, 1) for size in header.shape) > LARGEST:  # which numpy refuses, also of an empty array
        raise ValueError(value)
    return TensorEntry(file, dtype, tuple(header.shape), begin + start, begin + end)


def _check_layout(entries: Mapping[str, TensorEntry], begin: int, size: int, field: str, where: str) -> None:
    """Raise UserError where tensors overlap, or leave bytes of the file to nobody: both may be a forged file."""
    last, name = begin, ""
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != last:
            fault = f"{key} overlaps {name or 'the header'}" if entry.start < last else f"a gap before {key}"
            raise UserError(field, where, f"is not a valid safetensors file ({fault}); fetch it again")
        last, name = entry.end, key
    if last != size:
        raise UserError(field, where, f"is not a valid safetensors file ({size - last} bytes too many); fetch it again")


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

    Raises:
      UserError: a tensor holds NaN or infinity, or numbers that are too large for its dtype.
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
    packed = cast_finite(tensor, spec.dtype, spec.key)
    return packed.reshape(-1).view(np.uint8)
