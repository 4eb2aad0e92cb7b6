"""The splash kernel, interpreted on the CPU, against XLA's attention; and compiled for a TPU that is not there."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.models.attention import AttentionPattern, causal_self_attention
from coi_jax.models.kernels import splash
from coi_jax.models.kv_cache import KeyValues
from launch.preflight import topologies
from tests.helpers import tiny_models

LENGTH = 256
SCALE = 0.25
Arguments = tuple[jax.Array, KeyValues]
Attend = Callable[..., jax.Array]


@pytest.fixture(scope="module")
def arguments() -> Arguments:
    """Rows of two key-value heads, each of which two heads of queries share."""
    random = np.random.default_rng(0)
    query, keys, values = (jnp.asarray(random.normal(size=(2, heads, LENGTH, 8)), jnp.float32) for heads in (4, 2, 2))
    return query, KeyValues(keys, values)


@pytest.fixture(scope="module")
def segments() -> jax.Array:
    """Examples of several lengths, one of a single position, one over the edge of a block; padding is 0."""
    rows = [[1] * 100 + [2] + [3] * 120 + [0] * 35, [1] * 256]
    return jnp.asarray(rows, jnp.int32)


def with_gradients(dot_product_attention: Attend, arguments: Arguments) -> Any:
    def total(arguments: Arguments) -> tuple[jax.Array, jax.Array]:
        attended = dot_product_attention(*arguments)
        return jnp.sum(jnp.sin(attended)), attended

    return jax.jit(jax.value_and_grad(total, has_aux=True))(arguments)


def by_xla(segments: jax.Array | None, window: int | None, cap: float | None) -> Attend:
    return lambda query, kv: causal_self_attention(query, kv, AttentionPattern(segments, window), scale=SCALE, cap=cap)


def by_splash(segments: jax.Array | None, window: int | None, cap: float | None) -> Attend:
    return lambda query, kv: splash.causal_self_attention(
        query, kv, segments, window=window, scale=SCALE, cap=cap, interpret=True
    )


def assert_same(ours: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), ours, expected)


@pytest.mark.parametrize(("packed", "window", "cap"), [(True, None, None), (True, 40, 3.0), (False, 2 * LENGTH, None)])
def test_gives_what_xla_gives(
    arguments: Arguments, segments: jax.Array, packed: bool, window: int | None, cap: float | None
) -> None:
    ids = segments if packed else None
    assert_same(
        with_gradients(by_splash(ids, window, cap), arguments), with_gradients(by_xla(ids, window, cap), arguments)
    )


@pytest.mark.parametrize("axes", [{"fsdp": 2, "tensor": 2, "sequence": 2}, {"tensor": 4}], ids=str)
def test_gives_the_same_on_a_mesh(arguments: Arguments, segments: jax.Array, axes: dict[str, int]) -> None:
    """With more devices than key-value heads too: each then takes the one that its queries share."""
    expected = with_gradients(by_xla(segments, 100, None), arguments)
    with jax.set_mesh(tiny_models.mesh(**axes)):
        assert_same(with_gradients(by_splash(segments, 100, None), arguments), expected)


def tpu_mesh() -> jax.sharding.Mesh:
    devices = topologies.devices(topologies.parse("v5e:2x2"))
    return jax.make_mesh(
        (1, 2, 2, 1), ("replica", "fsdp", "tensor", "sequence"), (jax.sharding.AxisType.Auto,) * 4, devices=devices
    )


@pytest.mark.tpu
@pytest.mark.parametrize(("head_dim", "window", "cap"), [(64, None, None), (256, 300, 50.0)])
def test_compiles_for_a_tpu(head_dim: int, window: int | None, cap: float | None) -> None:
    """Also with heads that do not fill a register of 128 lanes."""
    shapes = [jax.ShapeDtypeStruct((2, heads, 512, head_dim), jnp.bfloat16) for heads in (8, 4, 4)]
    dot_product_attention = functools.partial(splash.causal_self_attention, window=window, scale=SCALE, cap=cap)

    def total(query: jax.Array, keys: jax.Array, values: jax.Array, segments: jax.Array) -> jax.Array:
        return jnp.sum(dot_product_attention(query, KeyValues(keys, values), segments).astype(jnp.float32))

    with jax.set_mesh(tpu_mesh()):
        lowered = jax.jit(jax.grad(total, (0, 1, 2))).lower(*shapes, jax.ShapeDtypeStruct((2, 512), jnp.int32))
        text = lowered.compile().as_text()
    assert text is not None
    for phase in ("fwd", "dq", "dkv"):
        assert f"splash_mha_{phase}_segmented" in text
