import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from coi_jax.runs.checksums import checksums, differing, part_checksum, shapes, shapes_of


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "int8"])
def test_every_bit_counts(dtype: str) -> None:
    array = np.asarray(jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)) * 50, dtype))
    unsigned = f"uint{8 * array.itemsize}"
    expected = checksums({"weight": array})
    for element in np.ndindex(array.shape):
        for bit in range(8 * array.itemsize):
            changed = array.view(unsigned).copy()
            changed[element] ^= 1 << bit
            assert differing({"weight": changed.view(array.dtype)}, expected) == "['weight']"


def test_the_order_of_elements_counts_and_names_and_shapes_are_told() -> None:
    one = checksums({"a": jnp.arange(6.0).reshape(2, 3), "b": [jnp.ones((), jnp.bool_)]})
    assert {path: text.split()[0] for path, text in one.items()} == {"['a']": "float32[2,3]", "['b'][0]": "bool[]"}
    assert shapes_of(one) == {"['a']": (2, 3), "['b'][0]": ()}
    assert shapes_of(one) == shapes({"a": jnp.zeros((2, 3)), "b": [jnp.zeros(())]})
    other = checksums({"a": jnp.arange(6.0)[::-1].reshape(2, 3), "b": [jnp.zeros((), jnp.bool_)]})
    assert set(one) == set(other)
    assert all(one[path] != other[path] for path in one)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_parts_on_the_host_add_up_to_the_checksum_of_the_whole(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coi_jax.runs.checksums.PART_BLOCK", 7)
    array = np.asarray(jnp.asarray(np.random.default_rng(2).normal(size=(3, 5, 4)) * 50, dtype))
    total = sum(part_checksum(part, number * part.size) for number, part in enumerate(array)) % 2**32
    assert checksums(array) == {"": f"{dtype}[3,5,4] {total:08x}"}


def test_the_layout_on_devices_does_not_count() -> None:
    array = jnp.asarray(np.random.default_rng(1).normal(size=(8, 4)), jnp.float32)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    parted = jax.device_put(array, NamedSharding(mesh, PartitionSpec("x", "y")))
    assert checksums([parted]) == checksums([array])


def test_an_array_that_is_missing_differs_and_one_of_another_dtype_is_compared_as_written() -> None:
    expected = checksums({"a": jnp.full(3, 0.1, jnp.bfloat16)})
    assert differing({"a": jnp.full(3, 0.1, jnp.bfloat16).astype(jnp.float32)}, expected) is None
    for dtype in (jnp.bfloat16, jnp.float32):
        assert differing({"a": jnp.full(3, 0.2, dtype)}, expected) == "['a']"
    assert differing({"b": jnp.full(3, 0.1, jnp.bfloat16)}, expected) == "['b']"
    wider = checksums({"a": jnp.full(3, 0.1, jnp.float32)})
    assert differing({"a": jnp.full(3, 0.1, jnp.bfloat16)}, wider) is None
