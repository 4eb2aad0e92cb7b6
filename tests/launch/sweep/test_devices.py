import os
from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from launch.sweep.devices import device_shares, is_alone


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without accelerators whose JAX may use any."""
    for name in ("JAX_PLATFORMS", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_gpus_are_divided(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia10", "nvidiactl"):
        (machine / name).touch()
    first, second = device_shares(2, machine)
    assert first.environment == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert second.environment == {"CUDA_VISIBLE_DEVICES": "2,10"}
    assert first.devices == 2
    with pytest.raises(UserError, match="--workers: 3: this machine has 4 GPUs; give a divisor of that"):
        device_shares(3, machine)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-a1")
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in device_shares(2, machine)] == ["5", "GPU-a1"]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not device_shares(1, machine)[0].environment


def test_tpu_chips_are_divided(machine: Path) -> None:
    for number in range(4):
        (machine / f"accel{number}").touch()
    assert device_shares(1, machine)[0].environment == {}
    first, second = device_shares(2, machine)
    assert first.environment["TPU_VISIBLE_CHIPS"] == "0,1"
    assert second.environment == {
        "TPU_VISIBLE_CHIPS": "2,3",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,2,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
    }


def test_cores_are_divided_and_shared_where_they_are_few(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6})
    assert [share.cores for share in device_shares(1, machine)] == [()]
    assert [share.cores for share in device_shares(2, machine)] == [(4, 6), (5,)]
    assert [share.cores for share in device_shares(4, machine)] == [(4,), (5,), (6,), (4,)]
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    assert device_shares(1, machine)[0].devices == 8


def test_a_slice_of_tpus_may_have_other_hosts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    assert is_alone(1, machine)
    (machine / "accel0").touch()
    assert not is_alone(1, machine)
    assert is_alone(2, machine)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert is_alone(1, machine)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:8476")
    assert not is_alone(1, machine)
