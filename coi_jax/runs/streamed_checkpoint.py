"""A checkpoint written a layer at a time, in Orbax's format: no array of it is ever in memory whole.

Orbax writes the arrays that it is given. Here it is given descriptions, and a handler that asks for their layers.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jaxtyping import Shaped

from coi_jax.common.storage import PathLike, absolute
from coi_jax.runs import checksums
from coi_jax.runs.checkpoint import by_layer
from coi_jax.runs.storage_errors import storage_errors


@dataclass(frozen=True)
class Streamed:
    """An array that is read in parts while it is written.

    Attributes:
      shape: of the whole.
      dtype: that it is written in.
      parts: how many parts there are: the length of its first axis, or 1.
      read: returns the part of a number; the whole array where there is only one.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: int
    read: Callable[[int], Shaped[np.ndarray, "..."]]

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


class _Handler(ocp.type_handlers.NumpyHandler):
    """Write the parts of all arrays one after the other."""

    def __init__(self) -> None:
        super().__init__(deepcopy_host_arrays=False)
        self._one_at_a_time = asyncio.Lock()
        self.sums: dict[int, int] = {}  # checksums by the identities of what was written

    async def _open_and_write(self, value: Streamed, tspec: dict[str, Any], ts_context: tensorstore.Context) -> None:
        store = await tensorstore.open(tensorstore.Spec(tspec), create=True, open=True, context=ts_context)
        for number in range(value.parts):
            async with self._one_at_a_time:
                part = np.ascontiguousarray(value.read(number), value.dtype)
                share = checksums.part_checksum(part, number * part.size)
                self.sums[id(value)] = (self.sums.get(id(value), 0) + share) % checksums.MODULUS
                await (store if part.shape == value.shape else store[number]).write(part)


def write(folder: PathLike, tree: Any) -> dict[str, str]:
    """Write a tree with `Streamed` leaves into a new folder, which `checkpoint.restore_params` reads.

    Returns:
      The checksums of the arrays as parameters, which `checkpoint.write_position` takes.

    Raises:
      OSError: there is no room.
    """
    streaming = _Handler()
    registry = ocp.type_handlers.create_type_handler_registry((Streamed, streaming))
    save_args = jax.tree.map(by_layer, tree)
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    with storage_errors(folder), ocp.Checkpointer(handler) as writer:
        writer.save(absolute(folder), args=ocp.args.PyTreeSave(tree, save_args=save_args))
    leaves = jax.tree_util.tree_leaves_with_path({"params": tree})
    return {
        jax.tree_util.keystr(path): f"{checksums.describe(leaf)} {streaming.sums[id(leaf)]:08x}"
        for path, leaf in leaves
    }
