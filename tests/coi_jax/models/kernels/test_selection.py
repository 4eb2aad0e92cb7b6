"""Which kernel is chosen where."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from coi_jax.common.errors import UserError
from coi_jax.models import build
from coi_jax.models.kernels import cudnn, selection
from coi_jax.models.layer_stacks import default_unroll
from coi_jax.parallel import hardware
from tests.coi_jax.models.kernels.test_splash import tpu_mesh
from tests.helpers import tiny_models
from tests.helpers.tiny_networks import DECODER, T5, VOCABULARY, change


def rows(length: int = 256, head_dim: int = 64, dtype: str = "bfloat16") -> jax.Array:
    return jnp.zeros((2, 4, length, head_dim), dtype)


def select_kernel(requested: str, query: jax.Array, cap: float | None = None) -> str:
    return selection.select_kernel(requested, query, packed=True, cap=cap)


def test_a_cpu_has_none() -> None:
    assert [select_kernel(requested, rows()) for requested in ("auto", "xla")] == ["xla", "xla"]
    for requested in ("splash", "cudnn"):
        with pytest.raises(UserError, match=rf'config\.model\.attention: {requested}: .*platform "cpu"'):
            select_kernel(requested, rows())


def test_the_platform_is_that_of_the_mesh_in_use() -> None:
    assert hardware.platform() == "cpu"
    with jax.set_mesh(tpu_mesh()):
        assert hardware.platform() == "tpu"


def test_layers_are_unrolled_on_a_cpu_alone() -> None:
    assert default_unroll(30) == 30
    with jax.set_mesh(tpu_mesh()):
        assert default_unroll(30) == 1


def test_a_tpu_takes_rows_of_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "platform", lambda: "tpu")
    assert select_kernel("auto", rows(), cap=30.0) == select_kernel("splash", rows(dtype="float32")) == "splash"
    assert select_kernel("auto", rows(200)) == "xla"
    with pytest.raises(UserError, match=r"multiple of 128, not 200"):
        select_kernel("splash", rows(200))
    with jax.set_mesh(tiny_models.mesh(sequence=4)):
        assert select_kernel("auto", rows()) == "xla"  # 64 positions a device


GPU_OBSTACLES = [
    ({"dtype": "float32"}, None, "in bfloat16 or float16, not in float32"),
    ({}, 30.0, "no soft cap"),
    ({"head_dim": 60}, None, "at most 256 channels, a multiple of 8, not 60"),
    ({"head_dim": 320}, None, "at most 256 channels"),
]


@pytest.mark.parametrize(("fields", "cap", "says"), GPU_OBSTACLES, ids=[says for _, _, says in GPU_OBSTACLES])
def test_a_gpu_has_limits(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], cap: float | None, says: str
) -> None:
    monkeypatch.setattr(selection, "platform", lambda: "gpu")
    monkeypatch.setattr(cudnn, "is_hopper", lambda: True)
    assert select_kernel("auto", rows()) == "cudnn"
    assert select_kernel("auto", rows(**fields), cap) == "xla"
    with pytest.raises(UserError, match=re.escape(says)):
        select_kernel("cudnn", rows(**fields), cap)


def test_older_gpus_and_divided_rows_are_left_to_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "platform", lambda: "gpu")
    monkeypatch.setattr(cudnn, "is_hopper", lambda: False)
    assert select_kernel("auto", rows()) == "xla"
    assert selection.select_kernel("auto", rows(), packed=False, cap=None) == "cudnn"
    monkeypatch.setattr(cudnn, "is_hopper", lambda: True)
    with jax.set_mesh(tiny_models.mesh(sequence=2)), pytest.raises(UserError, match=r"set config\.mesh\.sequence to 1"):
        select_kernel("cudnn", rows())


def test_a_t5_asks_for_no_kernel() -> None:
    with pytest.raises(ValueError, match="relative position bias"):
        change(T5, attention="splash")


@pytest.mark.parametrize(("remat", "forward"), [("attention", 2), ("full", 4)])
def test_a_decoder_for_a_tpu_that_is_not_there_uses_its_kernel(remat: str, forward: int) -> None:
    """Layers of two kinds are branches, each with a window of its own; the backward pass has two kernels."""
    fields = {"layers": 4, "heads": 4, "kv_heads": 2, "window": 100, "global_layer_interval": 2, "remat": remat}
    network = build(change(DECODER, **fields), VOCABULARY)
    ids = jax.ShapeDtypeStruct((2, 128), jnp.int32)
    batch = dict.fromkeys(("tokens", "targets", "weights", "segments", "positions"), ids)
    with jax.set_mesh(tpu_mesh()):
        gradient = jax.jit(jax.grad(lambda params, batch: network.loss(params, batch).loss))
        text = gradient.lower(network.abstract(), batch).as_text()
    counts = {phase: len(re.findall(rf'kernel_name = "splash_mha_{phase}', text)) for phase in ("fwd", "dq", "dkv")}
    assert counts == {"fwd": forward, "dq": 2, "dkv": 2}
