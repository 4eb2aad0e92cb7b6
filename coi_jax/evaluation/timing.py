"""`timing.jsonl`: how long each command took to generate the missing answers, and on what, a line for each."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from coi_jax.common import files
from coi_jax.common.seals import seal_row, unseal_row
from coi_jax.common.storage import AppendFile, PathLike

TIMING = "timing.jsonl"


def describe_machine() -> dict[str, Any]:
    """Return the devices of all hosts, and the cores of this one."""
    import jax  # readers of the file need none

    from coi_jax.parallel import hardware

    device, cores = jax.devices()[0], hardware.cpu_cores()
    return {"platform": device.platform, "kind": device.device_kind, "devices": jax.device_count(), "cores": cores}


def read_timing(path: PathLike) -> Iterator[dict[str, Any]]:
    """Yield the lines of a timing.jsonl; raise UserError where one was changed since it was written."""
    for place, row in files.read_placed_jsonl(path, "timing"):
        yield unseal_row(row, "timing", place)


@contextmanager
def timed(folder: epath.Path, count: Callable[[], int]) -> Iterator[None]:
    """Write a line with the time that the block took, also where it was interrupted.

    Args:
      folder: of the answers.
      count: returns the number of answers that there are.
    """
    from coi_jax.parallel import processes  # with JAX, which readers of the file do not need

    began, before = time.perf_counter(), count()
    try:
        yield
    finally:
        seconds = time.perf_counter() - began
        if processes.is_primary() and count() > before:
            with AppendFile(folder / TIMING, "workdir") as file:
                row = {"seconds": seconds, "answers": count() - before, **describe_machine()}
                files.append_jsonl(file, seal_row(row))
