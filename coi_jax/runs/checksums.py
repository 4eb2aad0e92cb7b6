"""Checksums of arrays, which do not depend on how the arrays are laid out on devices.

The devices compute them, so a checksum covers the whole way from the device into a file and back, on every storage. A
change of a single bit always changes it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

MODULUS = 2**32
PART_BLOCK = 2**16  # elements that are summed at once on the host: few, so that they stay in the cache of a core
UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by the bytes of an element


def checksums(tree: Any) -> dict[str, str]:
    """Return shape, dtype and checksum of every array of a tree, as `float32[2,16] 1a2b3c4d`, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = jax.device_get(_checksums([leaf for _, leaf in leaves]))
    return {
        jax.tree_util.keystr(path): f"{describe(leaf)} {int(found):08x}"
        for (path, leaf), found in zip(leaves, sums, strict=True)
    }


def describe(leaf: Any) -> str:
    """Return dtype and shape of an array, as `float32[2,16]`."""
    return f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of a tree by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def shapes_of(sums: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the values of `checksums` tell."""
    inner = {path: text.split()[0].partition("[")[2].rstrip("]") for path, text in sums.items()}
    return {path: tuple(int(size) for size in text.split(",") if size) for path, text in inner.items()}


def differing(tree: Any, expected: Mapping[str, str]) -> str | None:
    """Return the path of an array that has another checksum than expected; None where all have theirs.

    An array that was read as a wider dtype than it was written in is compared as written; one that was read as a
    narrower one is not compared.
    """

    def as_written(path: tuple[Any, ...], leaf: Any) -> Any:
        dtype = expected.get(jax.tree_util.keystr(path), describe(leaf)).partition("[")[0]
        return leaf.astype(dtype) if jnp.dtype(dtype).itemsize < leaf.dtype.itemsize else leaf

    for path, text in sorted(checksums(jax.tree_util.tree_map_with_path(as_written, tree)).items()):
        wanted = expected.get(path, "")
        if text != wanted and text.split()[0] == (wanted or text).split()[0]:
            return path
    return None


def part_checksum(part: Shaped[np.ndarray, "..."], first: int) -> int:
    """Return what a part of an array adds to the array's checksum, for arrays that are never in memory whole.

    Args:
      part: consecutive elements of the array.
      first: the number of the first of them.
    """
    bits = np.ascontiguousarray(part).reshape(-1).view(f"uint{8 * part.itemsize}")
    odd = 2 * np.arange(min(PART_BLOCK, bits.size), dtype=np.uint32) + np.uint32(1)
    total = 0
    for start in range(0, bits.size, PART_BLOCK):
        block = bits[start : start + PART_BLOCK].astype(np.uint32, copy=False)
        weighted = np.sum(block * odd[: block.size], dtype=np.uint32)  # as if `block` were the array's first elements
        total += int(weighted) + 2 * (first + start) * int(np.sum(block, dtype=np.uint32))
    return total % MODULUS


@jax.jit
def _checksums(leaves: Sequence[Shaped[Array, "..."]]) -> list[UInt32[Array, ""]]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(leaf: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    """Return the sum of an array's elements as unsigned integers, each times an odd number of its own, modulo 2³²."""
    leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
    bits = jax.lax.bitcast_convert_type(leaf, UNSIGNED[leaf.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis in range(leaf.ndim):
        stride = math.prod(leaf.shape[axis + 1 :]) % MODULUS
        place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(stride)
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
