"""Numbers that are not finite, which neither a checkpoint nor a published folder may hold.

A model that holds one answers with nonsense, or not at all, and says nothing of it. So weights are checked wherever
they are read or written: on the devices where they lie there, else tensor by tensor. No copy of an array is made.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from coi_jax.common.errors import UserError
from coi_jax.parallel import sharding

NOT_FINITE = "holds numbers that are not finite (NaN or infinity)"
BLOCK = 2**18  # elements that are checked at once on the host: few, so that they stay in the cache of a core
# The bits of the exponent, which are all 1 in NaN and infinity; numpy's own test of these dtypes is ten times slower.
EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80}


def first_not_finite(tree: Any) -> str | None:
    """Return the dotted path of the first array of a tree on devices that holds NaN or infinity; None: none does."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    finite = jax.device_get(_finite([leaf for _, leaf in leaves]))
    return next((sharding.path_name(path) for (path, _), one in zip(leaves, finite, strict=True) if not one), None)


def is_finite(array: Shaped[np.ndarray, "..."]) -> bool:
    """Return whether all numbers of an array on the host are finite."""
    if not array.ndim:
        return _is_block_finite(array)
    in_memory = array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    rows = max(1, BLOCK // max(1, math.prod(in_memory.shape[1:])))
    return all(_is_block_finite(in_memory[start : start + rows]) for start in range(0, len(in_memory), rows))


def _is_block_finite(block: Shaped[np.ndarray, "..."]) -> bool:
    exponent = EXPONENTS.get(block.dtype.name)
    if exponent is None:
        return bool(np.isfinite(block).all())
    return not bool(((block.view(np.uint16) & exponent) == exponent).any())


def cast_finite(tensor: Shaped[np.ndarray, "..."], dtype: np.dtype, name: str) -> Shaped[np.ndarray, "..."]:
    """Return a tensor in the dtype that it is written in, one piece of memory.

    Args:
      tensor: as it was read or computed.
      dtype: that it is written in.
      name: of the tensor.

    Raises:
      UserError: it holds NaN or infinity, or numbers that are too large for the dtype.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        packed = np.ascontiguousarray(tensor, dtype)
    if not is_finite(packed):
        if is_finite(tensor):
            hint = f"holds numbers that are too large for {dtype.name}; take bfloat16 or float32 (--dtype)"
            raise UserError("weights", name, hint)
        raise UserError("weights", name, f"{NOT_FINITE}; fetch it again, or take an older checkpoint")
    return packed


@jax.jit
def _finite(leaves: Sequence[Shaped[Array, "..."]]) -> list[Bool[Array, ""]]:
    return [jnp.isfinite(leaf).all() for leaf in leaves]
