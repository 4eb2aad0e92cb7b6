"""Unstacked layers compute what stacked ones do, through the same functions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.models import layer_stacks
from coi_jax.models.layer_stacks import map_stacks, read_layer, unstack, update_layer
from coi_jax.models.quantization import dequantize, quantize

LAYERS, ROWS, WIDTH = 3, 2, 4
STACK = jnp.asarray(np.random.default_rng(0).normal(size=(LAYERS, ROWS, WIDTH)), jnp.float32)


def stacks() -> list[Any]:
    return [STACK, unstack(STACK)]


def restack(stack: Any) -> np.ndarray:
    return np.stack([read_layer(stack, np.int64(layer)) for layer in range(LAYERS)])


def test_layers_are_read_alike() -> None:
    for stack in stacks():
        np.testing.assert_array_equal(restack(stack), STACK)
    assert len(jax.tree.leaves(unstack(STACK))) == LAYERS


def test_rows_of_a_layer_are_written_alike_each_from_its_own_slot() -> None:
    whole = jnp.asarray(np.random.default_rng(1).normal(size=(LAYERS, ROWS, 2, 6, WIDTH)), jnp.float32)
    update = jnp.full((ROWS, 2, 2, WIDTH), 7.0)
    expected = np.array(whole)
    expected[1, 0, :, 3:5] = expected[1, 1, :, :2] = 7.0
    for stack in (whole, unstack(whole)):
        written = update_layer(stack, np.int64(1), update, jnp.asarray([3, 0]))
        np.testing.assert_array_equal(restack(written), expected)


def test_functions_of_stacks_take_unstacked_layers_one_by_one() -> None:
    for stack in stacks():
        np.testing.assert_array_equal(restack(map_stacks(lambda leaf: leaf[:, ::-1], stack)), STACK[:, ::-1])


@pytest.mark.parametrize("quantized", [False, True])
def test_a_scan_over_unstacked_layers_is_an_unrolled_loop(quantized: bool) -> None:
    stack = quantize(STACK, (1,)) if quantized else STACK

    def step(carry: jax.Array, inputs: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
        layer, index = inputs
        carry = jnp.tanh(carry + dequantize(layer, jnp.float32)) * (1 + index)
        return carry, carry.sum()

    def run(layers: Any) -> tuple[jax.Array, jax.Array]:
        inputs = (layers, np.arange(LAYERS))
        return layer_stacks.scan(step, jnp.zeros((ROWS, WIDTH)), inputs, unroll=1, remat=lambda step: step)

    expected, ours = jax.jit(run)(stack), jax.jit(run)(unstack(stack))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, expected)
    assert "while" in jax.jit(run).lower(stack).as_text()
    assert "while" not in jax.jit(run).lower(unstack(stack)).as_text()
