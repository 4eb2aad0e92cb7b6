"""A roofline: the time of a program if chips reach their data sheets (Williams et al. 2009).

Operations, memory and exchanges may run at once, so the longest of the three is the least time; their sum is what it
takes where nothing overlaps. The truth lies between for programs that keep the cores busy, and above for others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from launch.preflight.hlo_costs import BETWEEN_SLICES, Collective, Costs
from launch.preflight.topologies import Topology

ASSUMPTIONS = (
    "matrix products run at the published bfloat16 peak, also those of float32 arrays, which a TPU multiplies in "
    "bfloat16",
    "what instructions read from and write to memory moves at the published bandwidth; other arithmetic is free",
    "exchanges run as rings over every torus axis that their chips span, both ways at once; an axis that is no ring "
    "has half the bandwidth",
    "exchanges between slices move at a chip's share of the data-centre network",
    "no time is lost to latency, kernel launches, the host or the loader",
)


@dataclass(frozen=True)
class Estimate:
    """Seconds of one run of a program."""

    compute: float
    memory: float
    exchange: float

    @property
    def least(self) -> float:
        """Seconds where the three overlap completely."""
        return max(self.compute, self.memory, self.exchange)

    @property
    def most(self) -> float:
        """Seconds where none overlaps."""
        return self.compute + self.memory + self.exchange

    @property
    def bound(self) -> str:
        """The one of the three that takes longest."""
        return max(("compute", "memory", "exchange"), key=lambda name: float(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "compute_seconds": self.compute,
            "memory_seconds": self.memory,
            "exchange_seconds": self.exchange,
            "least_seconds": self.least,
            "most_seconds": self.most,
            "bound": self.bound,
        }


def estimate(costs: Costs, topology: Topology, mesh: Mesh) -> Estimate:
    """Return the least and the most that a program's costs take on a topology.

    Args:
      costs: of one run of the program.
      topology: that runs it.
      mesh: whose axes the collectives use.
    """
    devices = list(mesh.devices.flat)
    exchange = sum(item.wire_bytes / bandwidth(item, topology, devices) for item in costs.collectives)
    chip = topology.chip
    return Estimate(costs.flops / chip.peak, costs.memory_bytes / chip.bandwidth, exchange)


def bandwidth(collective: Collective, topology: Topology, devices: Sequence[Any]) -> float:
    """Return bytes a second that each chip of a collective can receive.

    Args:
      collective: whose group of chips communicates.
      topology: that the chips are in.
      devices: of the mesh, in its order.
    """
    if collective.kind == BETWEEN_SLICES:
        return topology.chip.network / (2 * (topology.slices - 1) / topology.slices)  # a ring of slices
    members = [devices[number] for number in collective.group]
    places = np.array([member.coords[: len(topology.shape)] for member in members])
    spanned = [axis for axis in range(len(topology.shape)) if len(set(places[:, axis].tolist())) > 1]
    if collective.kind == "collective-permute":
        spanned = spanned[:1]  # to one neighbour, though over several steps to both
    return topology.chip.ring * (sum(1.0 if topology.is_ring(axis) else 0.5 for axis in spanned) or 1.0)


def mfu(model_flops: float, seconds: float, topology: Topology) -> float:
    """Share of the chips' peak that goes into the model's own operations (Chowdhery et al. 2022, appendix B).

    Args:
      model_flops: of the step on all chips.
      seconds: of the step.
      topology: that runs it.
    """
    return model_flops / (seconds * topology.chip.peak * topology.chips)
