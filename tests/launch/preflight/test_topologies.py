import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from coi_jax.common.errors import UserError
from launch.preflight import topologies
from launch.preflight.topologies import CHIPS, GIB, Topology


@pytest.mark.parametrize(
    ("name", "version", "shape", "chips"),
    [
        ("v5e:16x16", "v5e", (16, 16), 256),
        ("v5e-16", "v5e", (4, 4), 16),
        ("v5litepod-256", "v5e", (16, 16), 256),
        ("v5p-128", "v5p", (4, 4, 4), 64),
        ("v4-8", "v4", (2, 2, 1), 4),
        ("v6e-8", "v6e", (2, 4), 8),
    ],
)
def test_a_slice_has_two_names(name: str, version: str, shape: tuple[int, ...], chips: int) -> None:
    topology = topologies.parse(name)
    assert (topology.version, topology.shape, topology.chips) == (version, shape, chips)
    assert topologies.parse(topology.name) == topology
    assert topologies.parse(name, slices=3).chips == 3 * chips


@pytest.mark.parametrize("name", ["v5e:3x3", "v5e-17", "v7-8", "", "v5p:4x4"])
def test_an_unknown_topology_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"topology: .*unknown; one of .*v5e-256 \(v5e:16x16\).*v5p-128 \(v5p:4x4x4\)"):
        topologies.parse(name)


def test_there_are_no_slices_but_whole_ones() -> None:
    with pytest.raises(UserError, match="slices: 0: give a positive number"):
        topologies.parse("v5e-16", slices=0)


def test_axes_are_rings_where_they_span_a_pod_or_whole_cubes() -> None:
    rings = {
        name: [topologies.parse(name).is_ring(axis) for axis in range(2)]
        for name in ("v5e:16x16", "v5e:8x16", "v5e:4x4", "v5p:4x4x8", "v5p:2x4x4")
    }
    assert rings == {
        "v5e:16x16": [True, True],
        "v5e:8x16": [False, True],
        "v5e:4x4": [False, False],
        "v5p:4x4x8": [True, True],
        "v5p:2x4x4": [False, False],
    }


def test_without_libtpu_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(
        UserError, match=r"libtpu: not installed: run pip install -c constraints\.txt -e '\.\[launch\]'"
    ):
        topologies.devices(topologies.parse("v5e-16"))


SLICES = [*map(topologies.parse, ("v4-8", "v5e-1", "v5e-8", "v5p-16", "v6e-8")), Topology("v5e", (2, 2), slices=2)]


@pytest.mark.tpu
@pytest.mark.parametrize("topology", SLICES, ids=lambda topology: topology.name)
def test_every_chip_is_one_device(topology: Topology) -> None:
    devices = topologies.devices(topology)
    assert len(devices) == topology.chips
    assert {device.platform for device in devices} == {"tpu"}


@pytest.mark.tpu
@pytest.mark.parametrize("version", CHIPS)
def test_libtpu_says_that_a_chip_has_this_much_memory(version: str) -> None:
    topology = topologies.parse({"v4": "v4-8", "v5e": "v5e-4", "v5p": "v5p-8", "v6e": "v6e-4"}[version])
    one = SingleDeviceSharding(topologies.devices(topology)[0])
    huge = jax.ShapeDtypeStruct((2**16, 2**20), jnp.float32)
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jax.jit(lambda x: jnp.sin(x) + x[::-1], in_shardings=one, out_shardings=one).lower(huge).compile()
    assert f"available HBM ({topology.chip.hbm / GIB:.2f}G)" in str(caught.value)
