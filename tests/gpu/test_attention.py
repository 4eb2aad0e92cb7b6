"""cuDNN's kernel against XLA's attention on every NVIDIA GPU here: `JAX_PLATFORMS=cuda,cpu pytest tests/gpu`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.models import build
from coi_jax.models.attention import AttentionPattern, dot_product_attention
from coi_jax.models.kernels import cudnn
from coi_jax.models.kv_cache import KeyValues
from coi_jax.models.layers import REMAT_POLICIES
from tests.helpers.tiny_networks import DECODER, VOCABULARY, change

LENGTH = 512
SCALE = 0.125
SEGMENTS = {
    "packed": [[1] * 200 + [2] + [3] * 211 + [0] * 100, [1] * LENGTH],
    "more examples than the kernel has room for": [[1 + n // 40 for n in range(LENGTH)], [1] * LENGTH],
    "alone": None,
}


def with_gradients(dot_product_attention: Callable[..., jax.Array], device: jax.Device) -> Any:
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(2, heads, LENGTH, 64)) for heads in (8, 2, 2)]
    arguments = [jax.device_put(jnp.asarray(array, jnp.bfloat16), device) for array in arrays]

    def total(query: jax.Array, keys: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        attended = dot_product_attention(query, KeyValues(keys, values)).astype(jnp.float32)
        return jnp.sum(jnp.sin(attended)), attended

    (_, attended), gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(*arguments)
    return [np.asarray(leaf, np.float32) for leaf in (attended, *gradients)]


@pytest.mark.parametrize("rows", SEGMENTS)
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("policy", ["full", "attention"])
def test_gives_what_xla_gives(gpu: jax.Device, rows: str, window: int | None, policy: str) -> None:
    segments = None if SEGMENTS[rows] is None else jax.device_put(jnp.asarray(SEGMENTS[rows], jnp.int32), gpu)

    def by_xla(query: jax.Array, kv: KeyValues, segments: jax.Array | None) -> jax.Array:
        return dot_product_attention(
            query, kv, AttentionPattern(segments, window).mask(slice(0, LENGTH), slice(0, LENGTH)), scale=SCALE
        )

    @functools.partial(jax.checkpoint, policy=REMAT_POLICIES[policy])
    def by_cudnn(query: jax.Array, kv: KeyValues) -> jax.Array:
        return cudnn.causal_self_attention(query, kv, segments, window=window, scale=SCALE, fallback=by_xla)

    expected = with_gradients(lambda query, kv: by_xla(query, kv, segments), gpu)
    for ours, theirs in zip(with_gradients(by_cudnn, gpu), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max())


def test_a_decoder_gives_what_it_gives_with_xla(gpu: jax.Device) -> None:
    fields = {
        "dtype": "bfloat16",
        "window": 100,
        "global_layer_interval": 2,
        "layers": 4,
        "model_dim": 64,
        "head_dim": 16,
    }
    ids = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, (2, LENGTH)), jnp.int32)
    batch = dict.fromkeys(("tokens", "targets"), ids) | {"weights": jnp.ones_like(ids)}
    segments = jnp.asarray(SEGMENTS["packed"], jnp.int32)
    batch |= {"segments": segments, "positions": jnp.broadcast_to(jnp.arange(LENGTH)[None], ids.shape)}
    params, batch = jax.device_put((build(change(DECODER, **fields), VOCABULARY).init(jax.random.key(0)), batch), gpu)
    found = [
        jax.jit(build(change(DECODER, attention=kernel, **fields), VOCABULARY).loss)(params, batch).loss
        for kernel in ("cudnn", "xla")
    ]
    np.testing.assert_allclose(float(found[0]), float(found[1]), rtol=2e-3)
