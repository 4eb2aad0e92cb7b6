"""TPU chips, the slices that they come in, and the devices of a slice that need not be there.

A topology is written as chip and shape, `v5e:16x16`, or by the name of its accelerator type, `v5e-256`. The numbers of
v5e and v6e count chips, those of v4 and v5p TensorCores, of which a chip has two.
"""

import importlib.util
import math
import os
from dataclasses import dataclass
from typing import Any

from coi_jax.common import cli
from coi_jax.common.errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """The data sheet of a chip.

    Attributes:
      name: as the data sheets write it.
      peak: dense bfloat16 operations a second.
      hbm: bytes of memory that a program may take: what libtpu says it has when a program is too large.
      bandwidth: bytes a second between memory and cores.
      ring: bytes a second that reach it over one axis of the torus, from both sides.
      network: bytes a second that leave it for other slices.
      cores: that the names of accelerator types count for each chip.
      wraps: length from which an axis of the torus is closed to a ring.
    """

    name: str
    peak: float
    hbm: int
    bandwidth: float
    ring: float
    network: float
    cores: int
    wraps: int


# Google Cloud's data sheets (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e): operations, memory bandwidth, and the
# interconnect "bidirectional, per chip" (v5e 400, v5p 1200, v6e 800 GB/s) divided by twice the axes' number, for it
# counts what is sent and what is received; v4 from Jouppi et al. 2023, table 4 (six links of 50 GB/s each way).
# Network: of v5e and v6e that of a pod divided by its chips; for v4 nothing is published, v5e's stands in.
CHIPS = {
    "v4": Chip("TPU v4", 275e12, int(30.75 * GIB), 1.2e12, 100e9, 3.1e9, cores=2, wraps=4),
    "v5e": Chip("TPU v5e", 197e12, int(15.75 * GIB), 0.819e12, 100e9, 3.1e9, cores=1, wraps=16),
    "v5p": Chip("TPU v5p", 459e12, int(95.74 * GIB), 2.765e12, 200e9, 6.25e9, cores=2, wraps=4),
    "v6e": Chip("TPU v6e", 918e12, int(31.25 * GIB), 1.6e12, 200e9, 12.5e9, cores=1, wraps=16),
}

FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBIC = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
SHAPES = {"v4": CUBIC, "v5e": FLAT, "v5p": CUBIC, "v6e": FLAT}

# For libtpu, when it is loaded: not to look for a TPU, and that other processes may have loaded it too: none of them
# takes hold of a chip.
ENVIRONMENT = cli.NO_TPU | {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@dataclass(frozen=True)
class Topology:
    """One or more slices of one shape."""

    version: str  # a key of CHIPS
    shape: tuple[int, ...]  # of a slice
    slices: int = 1
    memory: int | None = None  # bytes of a chip that a program may take, where that is not what the chip has

    @property
    def chip(self) -> Chip:
        """The data sheet of its chips."""
        return CHIPS[self.version]

    @property
    def hbm(self) -> int:
        """Bytes of a chip's memory that a program may take."""
        return self.chip.hbm if self.memory is None else self.memory

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.slices * math.prod(self.shape)

    @property
    def name(self) -> str:
        """As libtpu writes it. Example: `v5e:4x4`."""
        return f"{self.version}:{'x'.join(map(str, self.shape))}"

    def is_ring(self, axis: int) -> bool:
        """Return whether an axis of the torus wraps: on v5e and v6e only where it spans a pod, on the others in whole
        cubes of 4 × 4 × 4 chips.
        """
        sides = self.shape if len(self.shape) == 3 else (self.shape[axis],)
        return all(side % self.chip.wraps == 0 for side in sides)


def known() -> list[str]:
    """Return the names of all topologies, as `v5e-16 (v5e:4x4)`."""
    return [f"{alias} ({name})" for alias, name in _aliases().items()]


def _aliases() -> dict[str, str]:
    names = {}
    for version, shapes in SHAPES.items():
        for shape in shapes:
            chips = math.prod(map(int, shape.split("x")))
            names[f"{version}-{chips * CHIPS[version].cores}"] = f"{version}:{shape}"
    return names


def parse(text: str, slices: int = 1, memory: int | None = None) -> Topology:
    """Return the topology of a name. Examples: `v5e:16x16`, `v5e-256`, `v5litepod-256`, `v5p-128`.

    Args:
      text: the name.
      slices: number of slices.
      memory: of a chip in bytes, in place of its data sheet's.

    Raises:
      UserError: there is none of this name, or `slices` is not positive.
    """
    aliases = _aliases()
    name = text.replace("v5litepod", "v5e")
    name = aliases.get(name, name)
    if name not in aliases.values():
        raise UserError("topology", text, f"unknown; one of {', '.join(known())}")
    if slices < 1:
        raise UserError("slices", slices, "give a positive number")
    version, _, shape = name.partition(":")
    return Topology(version, tuple(map(int, shape.split("x"))), slices, memory)


def devices(topology: Topology) -> list[Any]:
    """Devices to compile for, of a TPU that is not there.

    Raises:
      UserError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None and not os.environ.get("TPU_LIBRARY_PATH"):
        raise UserError("libtpu", "not installed", "run pip install -c constraints.txt -e '.[launch]'")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.version == "v4":
        options["chip_config_name"] = "megacore"  # both cores as one device, as on real machines
    if math.prod(topology.shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    return list(topologies.get_topology_desc(topology.name, platform="tpu", **options).devices)
