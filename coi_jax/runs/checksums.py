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

    An array that was read as another dtype than it was written in is not compared.
    """
    for path, text in sorted(checksums(tree).items()):
        wanted = expected.get(path, "")
        if text != wanted and text.split()[0] == (wanted or text).split()[0]:
            return path
    return None


@jax.jit
def _checksums(leaves: Sequence[Shaped[Array, "..."]]) -> list[UInt32[Array, ""]]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(leaf: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    """Return the sum of an array's elements as unsigned integers, each times an odd number of its own, modulo 2³²."""
    leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
    bits = jax.lax.bitcast_convert_type(leaf, UNSIGNED[leaf.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis in range(leaf.ndim):
        stride = math.prod(leaf.shape[axis + 1 :]) % 2**32
        place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(stride)
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
