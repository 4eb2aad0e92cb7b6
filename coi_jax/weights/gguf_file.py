"""Reads GGUF files: their metadata, and their tensors one by one as float32.

A file is a header (counts, metadata, and name, shape, type and place of every tensor) and the tensors' bytes:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Files come from anybody, so every count and size of a header
is checked against limits and against the file before anything is allocated for it. The package `gguf` knows the block
sizes of all types and turns blocks into numbers.
"""

import itertools
import math
import struct
from types import ModuleType
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from coi_jax.common.errors import UserError, shorten
from coi_jax.common.storage import PathLike, file_size, open_input

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # by type
FLOAT32, STRING, ARRAY = 6, 8, 9
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT, LARGEST_ALIGNMENT = 32, 2**20
MAX_HEADER = 2**28  # bytes; that of a vocabulary of 262,144 has 2**24
MAX_FIELDS = 2**16
MAX_ITEMS = 2**21  # of an array, and
MAX_TENSORS = 2**18
MAX_DIMENSIONS = 4  # of a tensor
MAX_NAME = 2**16  # bytes of a key or of a tensor's name
MAX_ELEMENTS = 2**60  # of a tensor


class GgufTensor(NamedTuple):
    """The shape of a tensor (slowest dimension first), its type as the package `gguf` numbers it, and its place."""

    shape: tuple[int, ...]
    type: int
    start: int  # byte of the file
    bytes: int


class GgufFile:
    """An open GGUF file, local or in a bucket; closed at the end of a `with` block.

    Attributes:
      where: the file, for errors.
      metadata: the values of the header, by key. Numbers of 32 bits are the shortest decimals that stand for them.
      tensors: what the header says of each tensor, by name.
    """

    def __init__(self, path: PathLike, field: str) -> None:
        """Read the header.

        Args:
          path: of the file.
          field: its name in an error.

        Raises:
          UserError: it is no GGUF file, is damaged or cut short, or the package `gguf` is not installed.
        """
        self.where, self.field = str(path), field
        self._library = _import_library(self.where, field)
        self._file = open_input(path, field)
        try:
            header = _Header(self._file, file_size(path), self._library)
            self.metadata, self.tensors = header.metadata, header.tensors
        except (_DamagedError, UnicodeDecodeError) as error:
            self._file.close()
            raise self.error(f"is no whole GGUF file ({error}); fetch it again") from None

    def __enter__(self) -> "GgufFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def error(self, hint: str, name: str = "") -> UserError:
        """Return an error about this file, or about one of its fields or tensors."""
        return UserError(self.field, f"{self.where}: {name}" if name else self.where, hint)

    def type_name(self, name: str) -> str:
        """Return the name of a tensor's type, as `Q4_K`."""
        return str(self._library.GGMLQuantizationType(self.tensors[name].type).name)

    def check_types(self) -> None:
        """Raise UserError where the package `gguf` cannot turn a tensor's type into numbers."""
        for kind, name in {tensor.type: name for name, tensor in self.tensors.items()}.items():
            _, size = self._library.GGML_QUANT_SIZES[kind]
            try:
                self._library.dequantize(np.zeros((1, size), np.uint8), self._library.GGMLQuantizationType(kind))
            except NotImplementedError:
                hint = f"is {self.type_name(name)}, which cannot be read here; take a file of another quantization"
                raise self.error(hint, name) from None

    def read(self, name: str) -> Float32[np.ndarray, "..."]:
        """Return a tensor, dequantized where it is quantized."""
        tensor = self.tensors[name]
        self._file.seek(tensor.start)
        data = np.frombuffer(self._file.read(tensor.bytes), np.uint8)
        rows = data.reshape(math.prod(tensor.shape[:-1]), -1)
        values = self._library.dequantize(rows, self._library.GGMLQuantizationType(tensor.type))
        return np.asarray(values, np.float32).reshape(tensor.shape)


def _import_library(where: str, field: str) -> ModuleType:
    try:
        import gguf
    except ImportError:
        hint = "is read by a package that is not installed; pip install 'coi-jax[gguf]'"
        raise UserError(field, where, hint) from None
    return gguf


class _DamagedError(Exception):
    """A header is not as the format says; the message is the reason."""


class _Header:
    """Reads the header of a file from its beginning."""

    def __init__(self, file: IO[bytes], size: int, library: ModuleType) -> None:
        self._file, self._size, self._library, self._position = file, size, library, 0
        if self._take(len(MAGIC)) != MAGIC:
            raise _DamagedError("it begins with other bytes")
        version = self._number("I")
        if version not in VERSIONS:
            raise _DamagedError(f"version {version}, of {' and '.join(map(str, VERSIONS))}")
        tensors, fields = self._count("tensors", MAX_TENSORS), self._count("fields", MAX_FIELDS)
        self.metadata: dict[str, Any] = {}
        for _ in range(fields):
            key = self._name()
            if key in self.metadata:
                raise _DamagedError(f"the field {shorten(key, 100)} twice")
            self.metadata[key] = self._value(self._number("I"))
        found = self._tensors(tensors)
        begin = _padded(self._position, self._alignment())
        self.tensors = {name: tensor._replace(start=begin + tensor.start) for name, tensor in found.items()}
        self._check_places()

    def _take(self, size: int) -> bytes:
        self._position += size
        if self._position > MAX_HEADER:
            raise _DamagedError(f"a header longer than {MAX_HEADER >> 20} MiB")
        if self._position > self._size:
            raise _DamagedError(f"cut short in its header, at {self._size} bytes")
        return self._file.read(size)

    def _number(self, kind: str) -> int:
        return int(struct.unpack(f"<{kind}", self._take(struct.calcsize(f"<{kind}")))[0])

    def _count(self, what: str, most: int) -> int:
        count = self._number("Q")
        if count > most:
            raise _DamagedError(f"{count} {what}, at most {most}")
        return count

    def _text(self) -> str:
        return self._take(self._count("bytes of a text", MAX_HEADER)).decode("utf-8")

    def _name(self) -> str:
        return self._take(self._count("bytes of a name", MAX_NAME)).decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            return self._array()
        return self._scalars(kind, 1)[0]

    def _array(self) -> list[Any]:
        kind, count = self._number("I"), self._count("items of an array", MAX_ITEMS)
        if kind == STRING:
            return [self._text() for _ in range(count)]
        return self._scalars(kind, count)

    def _scalars(self, kind: int, count: int) -> list[Any]:
        if kind not in SCALARS:  # an array of arrays too, which no model has
            raise _DamagedError(f"a value of type {kind}")
        form = f"<{count}{SCALARS[kind]}"
        values = struct.unpack(form, self._take(struct.calcsize(form)))
        return [float(str(np.float32(value))) for value in values] if kind == FLOAT32 else list(values)

    def _alignment(self) -> int:
        found = self.metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
        if type(found) is not int or not 0 < found <= LARGEST_ALIGNMENT or found & (found - 1):
            raise _DamagedError(f"{ALIGNMENT} = {shorten(found, 100)}, no power of two")
        return found

    def _tensors(self, count: int) -> dict[str, GgufTensor]:
        """Return the tensors, with places that count from the end of the header."""
        found: dict[str, GgufTensor] = {}
        for _ in range(count):
            name = self._name()
            if name in found:
                raise _DamagedError(f"the tensor {shorten(name, 100)} twice")
            found[name] = self._tensor(name)
        return found

    def _tensor(self, name: str) -> GgufTensor:
        dimensions = self._number("I")
        if not 0 < dimensions <= MAX_DIMENSIONS:
            raise _DamagedError(f"{shorten(name, 100)} has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
        kind, start = self._number("I"), self._number("Q")
        if kind not in self._library.GGML_QUANT_SIZES:
            raise _DamagedError(f"{shorten(name, 100)} is of the unknown type {kind}")
        block, size = self._library.GGML_QUANT_SIZES[kind]
        elements = math.prod(shape)
        if not 0 < elements <= MAX_ELEMENTS or shape[-1] % block:
            raise _DamagedError(f"{shorten(name, 100)} has the shape {shape}, in blocks of {block}")
        if start % self._alignment():
            raise _DamagedError(f"{shorten(name, 100)} begins at byte {start}")
        return GgufTensor(shape, kind, start, elements // block * size)

    def _check_places(self) -> None:
        """Raise where tensors overlap, or end beyond the file."""
        places = sorted(self.tensors.items(), key=lambda item: item[1].start)
        for (one, before), (other, after) in itertools.pairwise(places):
            if before.start + before.bytes > after.start:
                raise _DamagedError(f"{shorten(one, 100)} overlaps {shorten(other, 100)}")
        if places and (due := places[-1][1].start + places[-1][1].bytes) > self._size:
            raise _DamagedError(f"cut short: {self._size} of {due} bytes")


def _padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
