"""Read a checkpoint back from its files and compare it with what was saved, without a device.

Arrays are read in blocks of rows, so that host memory never holds a large one whole.
"""

import math
import re
from collections.abc import Iterator, Mapping

import numpy as np
import tensorstore
from jaxtyping import Shaped

from coi_jax.common import files
from coi_jax.common.errors import shorten
from coi_jax.common.storage import PathLike, absolute, is_local
from coi_jax.runs import checksums
from coi_jax.runs.storage_errors import failed_read

BLOCK = 2**26  # bytes of an array that are read at once, unless one of its stored pieces is larger
METADATA = "_METADATA"  # the file in which Orbax describes the arrays of an item
ALL = slice(None)


def find_damage(folder: PathLike, sums: Mapping[str, str], share: slice = ALL) -> str:
    """Return why the files of a checkpoint do not hold the arrays that were saved; "" where they do.

    Args:
      folder: of the checkpoint, with a folder for each item.
      sums: shape, dtype and checksum of every array by its path, as `checksums` returns them.
      share: which of the arrays to read, where several processes divide the work.

    Raises:
      OSError: storage failed to read them.
    """
    wanted = sorted(sums.items())
    try:
        for item in sorted({_parts(path)[0] for path, _ in wanted}):
            files.read_object(absolute(folder) / item / METADATA, f"{item}/{METADATA}")
        for path, text in wanted[share]:
            if _stored_checksum(folder, path) != text:
                return f"{path} is not what was saved"
    except (OSError, ValueError) as error:
        if failed := failed_read(error, folder):
            raise failed from None
        return shorten((str(error).strip().splitlines() or [type(error).__name__])[0], 160)
    return ""


def open_array(folder: PathLike, name: str) -> tensorstore.TensorStore:
    """Open an array in the files that Orbax writes: Zarr arrays in one OCDBT store.

    Args:
      folder: the item of a checkpoint, such as `params`.
      name: of the array, its keys joined by dots.
    """
    place = absolute(folder)
    base = f"{place}/" if not is_local(place) else {"driver": "file", "path": f"{place}/"}
    kvstore = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True).result()


def _parts(path: str) -> list[str]:
    """Return the keys of a path that `jax.tree_util.keystr` wrote, as `['optimizer'][1].mu`."""
    return [next(filter(None, keys)) for keys in re.findall(r"\['([^']*)'\]|\[(\d+)\]|\.(\w+)", path)]


def _stored_checksum(folder: PathLike, path: str) -> str:
    """Return dtype, shape and checksum of an array as it is stored."""
    item, *keys = _parts(path)
    store = open_array(absolute(folder) / item, ".".join(keys))
    total, first = 0, 0
    for block in _blocks(store):
        total += checksums.part_checksum(block, first)
        first += block.size
    dtype = np.dtype(store.dtype.numpy_dtype)
    return f"{dtype.name}[{','.join(map(str, store.shape))}] {total % checksums.MODULUS:08x}"


def _blocks(store: tensorstore.TensorStore) -> Iterator[Shaped[np.ndarray, "..."]]:
    """Yield an array in blocks of whole stored pieces, one after the other."""
    if not store.shape:
        yield np.asarray(store.read().result())
        return
    pieces = store.chunk_layout.read_chunk.shape or store.shape
    piece = pieces[0] or 1
    piece_bytes = piece * math.prod(store.shape[1:]) * store.dtype.numpy_dtype.itemsize
    rows = piece * max(1, BLOCK // max(1, piece_bytes))
    for start in range(0, store.shape[0], rows):
        yield np.asarray(store[start : min(start + rows, store.shape[0])].read().result())
