from typing import NamedTuple

import numpy as np
import pytest

from launch.preflight import roofline, topologies
from launch.preflight.hlo_costs import BETWEEN_SLICES, Collective, Costs


class Device(NamedTuple):
    coords: tuple[int, int, int]
    slice_index: int


class Mesh(NamedTuple):
    devices: np.ndarray


def devices(slices: int = 1) -> np.ndarray:
    """The chips of 4 × 4 slices, row by row."""
    made = np.empty(slices * 16, object)
    for number in range(len(made)):
        made[number] = Device((number % 16 // 4, number % 4, 0), number // 16)
    return made


ROW, COLUMN, ALL = (0, 1, 2, 3), (0, 4, 8, 12), tuple(range(16))
V5E = topologies.parse("v5e:4x4")


@pytest.mark.parametrize(
    ("kind", "group", "rings"),
    [("all-gather", ROW, 0.5), ("all-gather", COLUMN, 0.5), ("all-gather", ALL, 1.0), ("collective-permute", ALL, 0.5)],
)
def test_an_exchange_has_the_links_of_the_axes_that_it_spans(kind: str, group: tuple[int, ...], rings: float) -> None:
    assert roofline.bandwidth(Collective(kind, group, 1, 1), V5E, list(devices())) == rings * V5E.chip.ring


def test_a_whole_pod_has_rings_and_slices_share_the_network() -> None:
    pod = topologies.parse("v5e:16x16")
    chips = [Device((0, place, 0), 0) for place in range(16)]
    assert roofline.bandwidth(Collective("all-reduce", tuple(range(16)), 1, 1), pod, chips) == pod.chip.ring
    between = Collective(BETWEEN_SLICES, (), 1, 1)
    assert roofline.bandwidth(between, topologies.parse("v5e:4x4", slices=2), list(devices(2))) == V5E.chip.network
    assert (
        roofline.bandwidth(between, topologies.parse("v5e:4x4", slices=4), list(devices(4))) == V5E.chip.network / 1.5
    )


def test_the_longest_of_three_bounds_the_time_and_their_sum_is_the_most() -> None:
    gathered = Collective("all-gather", ROW, 2, 4e9)
    costs = Costs(flops=197e12, memory_bytes=0.819e12 / 2, collectives=(gathered,), kernels=0)
    times = roofline.estimate(costs, V5E, Mesh(devices()))  # type: ignore[arg-type]
    assert times.compute == pytest.approx(1)
    assert times.memory == pytest.approx(0.5)
    assert times.exchange == pytest.approx(3 / 4 * 4e9 / 50e9)
    assert (times.least, times.bound) == (times.compute, "compute")
    assert times.most == pytest.approx(1 + 0.5 + 0.06)
    assert roofline.mfu(197e12 * 16, 2.0, V5E) == pytest.approx(0.5)
