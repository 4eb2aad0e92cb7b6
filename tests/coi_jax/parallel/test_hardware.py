from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from coi_jax.common.errors import UserError
from coi_jax.parallel import hardware


def test_a_product_is_measured() -> None:
    assert 1e6 < hardware.measure("float32", 64, repeats=2) < 1e15


@pytest.mark.parametrize(
    ("kind", "dtype", "peak"),
    [
        ("TPU v5 lite", "bfloat16", 197e12),
        ("TPU v5p", "bfloat16", 459e12),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("TPU v4", "float32", 1e12),
        ("a new chip", "bfloat16", 1e12),
    ],
)
def test_known_chips_are_looked_up_and_others_measured(
    monkeypatch: pytest.MonkeyPatch, kind: str, dtype: str, peak: float
) -> None:
    chips = [SimpleNamespace(device_kind=kind, platform="tpu")] * 4
    monkeypatch.setattr(jax, "devices", lambda: chips)
    monkeypatch.setattr(jax, "device_count", lambda: len(chips))
    monkeypatch.setattr(hardware, "measure", lambda dtype, size: 1e12)
    assert hardware.matmul_peak(dtype) == 4 * peak


def test_simulated_devices_share_one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "measure", lambda dtype, size: 1e9)
    assert hardware.matmul_peak("float32") == 1e9


def test_an_accelerator_that_jax_leaves_unused_is_named_with_its_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert hardware.unused_accelerator(tmp_path) is None
    (tmp_path / "nvidiactl").touch()
    assert hardware.unused_accelerator(tmp_path) is None
    (tmp_path / "nvidia0").touch()
    assert "'.[cuda12]'" in (hardware.unused_accelerator(tmp_path) or "")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert hardware.unused_accelerator(tmp_path) is None
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert hardware.unused_accelerator(tmp_path) is None


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda'")])
def test_a_platform_that_jax_cannot_use_is_named(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr(jax, "default_backend", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match="JAX_PLATFORMS: cuda: is no platform that JAX can use on this machine"):
        hardware.unused_accelerator()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=0")
    with pytest.raises(UserError, match=r"^XLA_FLAGS: --xla.*=0: JAX cannot start with it"):
        hardware.unused_accelerator()
    monkeypatch.delenv("XLA_FLAGS")
    with pytest.raises(type(error)):
        hardware.unused_accelerator()
