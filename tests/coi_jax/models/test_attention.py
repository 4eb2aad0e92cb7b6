import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.models import attention
from coi_jax.models.attention import AttentionPattern, blockwise_attention, dot_product_attention, query_blocks
from coi_jax.models.kv_cache import KeyValues

LENGTH, WINDOW = 300, 40


def arrays(seed: int) -> tuple[jax.Array, KeyValues]:
    keys = jax.random.split(jax.random.key(seed), 3)
    query, key, value = (
        jax.random.normal(one, (2, heads, LENGTH, 8)) for one, heads in zip(keys, (4, 2, 2), strict=True)
    )
    return query, KeyValues(key, value)


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("packed", [False, True])
def test_rows_in_blocks_give_what_whole_rows_give(window: int | None, packed: bool) -> None:
    segments = jnp.asarray(np.repeat([[1, 2, 3], [1, 2, 0]], LENGTH // 3, axis=1)) if packed else None
    pattern, whole = AttentionPattern(segments, window), slice(0, LENGTH)

    @jax.jit
    def by_blocks(query: jax.Array, kv: KeyValues) -> jax.Array:
        return blockwise_attention(query, kv, pattern, scale=0.3, cap=5.0)

    @jax.jit
    def at_once(query: jax.Array, kv: KeyValues) -> jax.Array:
        return dot_product_attention(query, kv, pattern.mask(whole, whole), scale=0.3, cap=5.0)

    assert len(query_blocks(LENGTH)) == 3
    given = arrays(0)
    np.testing.assert_allclose(by_blocks(*given), at_once(*given), atol=2e-6)
    ours, theirs = (
        jax.jit(jax.grad(lambda query, kv, f=f: jnp.sum(f(query, kv) ** 2), (0, 1)))(*given)
        for f in (by_blocks, at_once)
    )
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_mask_is_that_of_the_definition() -> None:
    seen = AttentionPattern(None, WINDOW).mask(slice(100, 200), slice(61, 200))[0]
    for row, column in ((0, 0), (0, 39), (0, 40), (50, 10), (50, 11), (99, 138)):
        back = (100 + row) - (61 + column)
        assert seen[row, column] == (0 <= back < WINDOW)
    assert AttentionPattern(None, WINDOW).first_visible_key(100) == 61
    assert AttentionPattern(None, WINDOW).first_visible_key(3) == AttentionPattern(None).first_visible_key(100) == 0


@pytest.mark.parametrize(("length", "number"), [(1, 1), (128, 1), (129, 2), (1024, 8), (4096, 8), (5000, 8)])
def test_blocks_hold_every_query_once(length: int, number: int) -> None:
    found = query_blocks(length)
    assert len(found) == number
    assert [position for part in found for position in range(part.start, part.stop)] == list(range(length))


def test_where_devices_share_out_positions_there_is_one_block() -> None:
    mesh = jax.make_mesh((2,), ("sequence",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        assert len(query_blocks(4096)) == 1
    assert attention.MASKED < -1e29
