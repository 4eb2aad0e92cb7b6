"""The memory of a worker of the suite: JAX keeps every compiled program of a process, gigabytes of them by the end."""

import contextlib
import ctypes
import gc
import os
from pathlib import Path

import jax

GROWTH = 2**30  # bytes by which a process has grown when it is worth a second to look for what is left over

_least = 0


def resident() -> int:
    """The bytes of this process that are in memory; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") if statm.exists() else 0


def drop_programs() -> None:
    """Drop compiled programs where the process has grown much since they were last dropped."""
    global _least
    if resident() - _least < GROWTH:
        return
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(AttributeError):  # of another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)  # or it keeps what was freed
    _least = resident()
