"""The devices of this machine, divided among the workers of a sweep. JAX is not asked: it would take them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coi_jax.common.errors import UserError

# How libtpu arranges the chips of one process, by their number.
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}
COORDINATOR = "JAX_COORDINATOR_ADDRESS"  # which names the other processes of a run
# The number of this process among those of a run: as JAX is told it, as GKE numbers the hosts of a TPU slice and the
# slices, as SkyPilot numbers hosts.
PROCESS, SLICE = ("JAX_PROCESS_ID", "TPU_WORKER_ID", "SKYPILOT_NODE_RANK"), ("MEGASCALE_SLICE_ID",)
FORCED_DEVICES = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


@dataclass(frozen=True)
class DeviceShare:
    """A worker's part of the machine.

    Attributes:
      devices: that JAX will see.
      environment: variables that show a process these devices alone.
      cores: of the CPU that it runs on; none are all.
    """

    devices: int
    environment: dict[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()


def device_shares(workers: int, folder: Path = Path("/dev")) -> list[DeviceShare]:
    """Return each worker's share: as many GPUs or TPU chips for each, or its cores where there is no accelerator.

    Args:
      workers: processes that run points at the same time.
      folder: of the operating system's devices.

    Raises:
      UserError: the devices cannot be divided by so many.
    """
    if gpus := _gpus(folder):
        return [DeviceShare(len(part), _gpu_variables(part)) for part in _divide(gpus, workers, "GPUs")]
    if chips := _tpu_chips(folder):
        return [DeviceShare(len(part), _tpu_variables(part, workers)) for part in _divide(chips, workers, "TPU chips")]
    found = FORCED_DEVICES.search(os.environ.get("XLA_FLAGS", ""))
    return [DeviceShare(int(found[1]) if found else 1, cores=cores) for cores in _divide_cores(workers)]


def is_alone(workers: int, folder: Path = Path("/dev")) -> bool:
    """Return whether the devices of a worker are all that its points run on: a TPU slice may have other hosts.

    Args:
      workers: processes that run points at the same time.
      folder: of the operating system's devices.
    """
    return workers > 1 or not (COORDINATOR in os.environ or _tpu_chips(folder))


def follower_name() -> str:
    """Return a name of this host where it runs the points of a sweep together with others; "" on the primary one.

    Values that are no numbers do not count: libtpu writes a warning into `TPU_WORKER_ID` where there is no TPU.
    """
    numbers = [
        next(filter(str.isdecimal, (os.environ.get(name, "") for name in names)), "0") for names in (SLICE, PROCESS)
    ]
    return "" if set(numbers) == {"0"} else "-".join(numbers)


def _gpus(folder: Path) -> list[str]:
    if not _may_use("cuda", "gpu"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    return [str(number) for number in _numbers(folder, "nvidia")]


def _tpu_chips(folder: Path) -> list[str]:
    if not _may_use("tpu"):
        return []
    visible = os.environ.get("TPU_VISIBLE_CHIPS")
    if visible:
        return visible.split(",")
    count = len(_numbers(folder, "accel")) or len(_numbers(folder / "vfio", ""))
    return [str(number) for number in range(count)]


def _may_use(*platforms: str) -> bool:
    """Return whether JAX is free to take one of some platforms."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    return not asked or any(platform in asked.split(",") for platform in platforms)


def _numbers(folder: Path, prefix: str) -> list[int]:
    """Return the numbers of the device files that are named by a prefix and a number."""
    names = (path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}[0-9]*"))
    return sorted(int(name) for name in names if name.isdecimal())


def _divide(names: Sequence[str], workers: int, kind: str) -> list[Sequence[str]]:
    if len(names) % workers:
        raise UserError("--workers", workers, f"this machine has {len(names)} {kind}; give a divisor of that")
    size = len(names) // workers
    return [names[start : start + size] for start in range(0, len(names), size)]


def _gpu_variables(names: Sequence[str]) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(names)}


def _tpu_variables(names: Sequence[str], workers: int) -> dict[str, str]:
    if workers == 1:
        return {}
    if len(names) not in TPU_BOUNDS:
        raise UserError("--workers", workers, f"leaves {len(names)} chips to each; 1, 2, 4 or 8 can be one process")
    return {
        "TPU_VISIBLE_CHIPS": ",".join(names),
        "TPU_CHIPS_PER_PROCESS_BOUNDS": TPU_BOUNDS[len(names)],
        "TPU_PROCESS_BOUNDS": "1,1,1",
    }


def _divide_cores(workers: int) -> list[tuple[int, ...]]:
    """Return the cores of each worker; where there are too few, some workers share one."""
    if workers == 1 or not hasattr(os, "sched_getaffinity"):
        return [()] * workers
    cores = sorted(os.sched_getaffinity(0))
    return [tuple(cores[number::workers]) or (cores[number % len(cores)],) for number in range(workers)]
