"""Numbers that are not finite are found wherever they are, without a copy of the array."""

import tracemalloc

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from coi_jax.common.errors import UserError
from coi_jax.runs.finite import BLOCK, cast_finite, first_not_finite, is_finite

DTYPES = (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_one_number_is_found(dtype: type, number: float) -> None:
    array: np.ndarray = np.zeros((3, BLOCK // 2), dtype)  # of more than one block
    assert is_finite(array)
    array[2, -1] = number
    assert not is_finite(array)
    assert not is_finite(array.T.reshape(2, -1, 3))
    assert not is_finite(array[2, -1:].reshape(()))
    assert is_finite(array[:0])


def test_the_array_is_not_copied() -> None:
    array = np.ones((8 * BLOCK,), np.float32)
    tracemalloc.start()
    assert is_finite(array)
    assert cast_finite(array, array.dtype, "a") is array
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < array.nbytes / 8


def test_what_a_smaller_dtype_cannot_hold_is_named() -> None:
    wide = np.asarray([[1.0, 70_000.0]], np.float32)
    np.testing.assert_array_equal(cast_finite(wide, np.dtype(ml_dtypes.bfloat16), "a"), [[1, 70_144]])
    with pytest.raises(UserError, match=r"weights: a: holds numbers that are too large for float16; take bfloat16 or"):
        cast_finite(wide, np.dtype(np.float16), "a")
    with pytest.raises(UserError, match=r"weights: a: holds numbers that are not finite \(NaN or infinity\)"):
        cast_finite(np.asarray([np.inf], np.float32), np.dtype(np.float16), "a")


def test_the_first_array_of_a_tree_is_named() -> None:
    tree = {"layers": {"up": jnp.ones((2, 3)), "down": jnp.ones(3, jnp.int8)}, "norm": jnp.asarray([1.0, jnp.nan])}
    assert first_not_finite(tree) == "norm"
    assert first_not_finite(tree["layers"]) is None
