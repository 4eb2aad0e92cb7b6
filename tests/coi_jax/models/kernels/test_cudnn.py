"""What goes to cuDNN's kernel, without a GPU: rows as ragged batches, and programs for CUDA. See also tests/gpu."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.cudnn import fused_attention_stablehlo

from coi_jax.models.attention import AttentionPattern, dot_product_attention
from coi_jax.models.kernels import cudnn
from coi_jax.models.kv_cache import KeyValues
from coi_jax.models.layers import REMAT_POLICIES
from tests.helpers import tiny_models

LENGTH = 256
WINDOW = 40
SCALE = 0.125


def rows_of(lengths: list[int], length: int) -> np.ndarray:
    """Segments of a row: examples of some lengths, then padding."""
    ids = np.repeat(np.arange(1, 1 + len(lengths)), lengths)[:length]
    return np.pad(ids, (0, length - len(ids)))


@given(st.lists(st.lists(st.integers(1, 30), max_size=6), min_size=1, max_size=3))
@settings(max_examples=30)
def test_spans_hold_every_position_once_in_order(lengths: list[list[int]]) -> None:
    segments = np.stack([rows_of(row, 64) for row in lengths])
    starts, counts = map(np.asarray, cudnn.example_spans(jnp.asarray(segments, jnp.int32)))
    assert starts.shape == (len(lengths), cudnn.max_examples(64))
    for row, begins, sizes in zip(segments, starts, counts, strict=True):
        held = begins >= 0
        assert (held == (sizes > 0)).all()
        assert sorted(held.tolist(), reverse=True) == held.tolist()
        found = [number for number, size in enumerate(sizes[held]) for _ in range(size)]
        assert begins[held].tolist() == [0, *np.cumsum(sizes[held])[:-1]]
        np.testing.assert_array_equal(np.diff(found) != 0, np.diff(row) != 0)


def test_ragged_causal_attention_sees_what_the_mask_shows() -> None:
    """Causal within each span, and no further back than the window: the contract of the kernel."""
    segments = jnp.asarray(rows_of([5, 1, 9, 20], 48)[None], jnp.int32)
    (starts,), (counts,) = map(np.asarray, cudnn.example_spans(segments))
    seen = np.zeros((48, 48), bool)
    for start, count in zip(starts[starts >= 0], counts[counts >= 0], strict=True):
        distance = np.arange(count)[:, None] - np.arange(count)[None]
        seen[start : start + count, start : start + count] = (distance >= 0) & (distance < 7)
    np.testing.assert_array_equal(seen, AttentionPattern(segments, 7).mask(slice(0, 48), slice(0, 48))[0])


@pytest.fixture
def _as_on_a_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(cudnn, "is_hopper", lambda: True)


def by_xla(query: jax.Array, kv: KeyValues, segments: jax.Array | None) -> jax.Array:
    return dot_product_attention(
        query,
        kv,
        AttentionPattern(segments, WINDOW).mask(slice(0, query.shape[2]), slice(0, query.shape[2])),
        scale=SCALE,
    )


def program(policy: str, packed: bool = True, heads: int = 4) -> str:
    """The gradient of rematerialised attention, for CUDA."""
    shapes = [jax.ShapeDtypeStruct((4, count, LENGTH, 64), jnp.bfloat16) for count in (heads, 2, 2)]
    ids = jax.ShapeDtypeStruct((4, LENGTH), jnp.int32) if packed else None

    @functools.partial(jax.checkpoint, policy=REMAT_POLICIES[policy])
    def causal_self_attention(query: jax.Array, keys: jax.Array, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        kv = KeyValues(keys, values)
        return cudnn.causal_self_attention(query, kv, ids, window=WINDOW, scale=SCALE, fallback=by_xla)

    def total(*arguments: jax.Array) -> jax.Array:
        return jnp.sum(causal_self_attention(*arguments).astype(jnp.float32) ** 2)

    traced = jax.jit(jax.value_and_grad(total, (0, 1, 2))).trace(*shapes, ids)
    text: str = traced.lower(lowering_platforms=("cuda",)).as_text()
    return text


def calls(text: str, name: str) -> list[str]:
    return [line for line in text.split("\n") if f"@__cudnn${name}(" in line]


@pytest.mark.usefixtures("_as_on_a_hopper")
def test_lowers_for_cuda_as_a_ragged_causal_batch_with_a_window() -> None:
    (forward,) = calls(program("attention"), "fmhaSoftmax")
    for says in ("PADDING_CAUSAL", rf"sliding_window_length\\22: {WINDOW}", r"max_seg_per_batch\\22: 8"):
        assert re.search(says, forward), says


@pytest.mark.usefixtures("_as_on_a_hopper")
def test_rows_of_one_example_share_key_heads_in_the_kernel() -> None:
    (forward,) = calls(program("attention", packed=False), "fmhaSoftmax")
    assert re.search(r"mask_type\\22: \\22CAUSAL", forward)
    assert "(tensor<4x256x4x64xbf16>, tensor<4x256x2x64xbf16>" in forward


@pytest.mark.usefixtures("_as_on_a_hopper")
def test_remat_keeps_or_computes_again_what_the_kernel_gave() -> None:
    again, kept = (program(policy) for policy in ("full", "attention"))
    assert [len(calls(text, "fmhaSoftmax")) for text in (again, kept)] == [2, 1]
    assert [len(calls(text, "fmhaSoftmaxBackward")) for text in (again, kept)] == [1, 1]


@pytest.mark.usefixtures("_as_on_a_hopper")
def test_a_device_of_a_mesh_calls_with_its_own_rows_and_heads() -> None:
    with jax.set_mesh(tiny_models.mesh(fsdp=2, tensor=2)):
        (backward,) = calls(program("attention"), "fmhaSoftmaxBackward")
    assert "(tensor<2x256x2x64xbf16>, tensor<2x256x2x64xbf16>" in backward


@pytest.mark.usefixtures("_as_on_a_hopper")
def test_a_batch_beyond_the_bound_is_computed_by_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's branch is not taken, so that it can be a constant here."""
    monkeypatch.setattr(cudnn, "_fused_attention", lambda query, *_: jnp.zeros_like(query))
    random = np.random.default_rng(0)
    query, keys, values = (jnp.asarray(random.normal(size=(2, heads, 64, 8)), jnp.bfloat16) for heads in (4, 2, 2))
    many, few = (np.stack([rows_of([3] * count, 64), rows_of([64], 64)]) for count in (9, 3))

    def causal_self_attention(segments: np.ndarray) -> jax.Array:
        ids, kv = jnp.asarray(segments, jnp.int32), KeyValues(keys, values)
        attend = functools.partial(cudnn.causal_self_attention, window=None, scale=SCALE, fallback=by_xla)
        attended: jax.Array = jax.jit(attend)(query, kv, ids)
        return attended

    expected = by_xla(query, KeyValues(keys, values), jnp.asarray(many, jnp.int32)).astype(jnp.float32)
    np.testing.assert_allclose(causal_self_attention(many).astype(jnp.float32), expected, atol=1e-2)
    assert not causal_self_attention(few).any()
