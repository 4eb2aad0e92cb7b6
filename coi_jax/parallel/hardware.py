"""The accelerators of this machine: whether JAX uses them, and the peak rate at which they multiply matrices."""

import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from coi_jax.common.errors import UserError, shorten
from coi_jax.common.wording import with_article

# Dense bf16 operations per second of one chip, by the start of `device_kind` (vendors' data sheets).
PUBLISHED: dict[str, float] = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


# What stands in /dev where an accelerator is: the kind, and the extra that installs JAX for it.
DEVICE_FILES = {"nvidia[0-9]*": ("NVIDIA GPU", "cuda12"), "accel[0-9]*": ("TPU", "tpu"), "vfio/[0-9]*": ("TPU", "tpu")}


def cpu_cores() -> int | None:
    """Return the number of CPU cores that this process may use; None where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def platform() -> str:
    """Return the platform of the mesh in use, else of this machine.

    The devices of a mesh may be absent: a program can be compiled for them all the same.
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform


def _default_backend() -> str:
    """Return JAX's platform; raise UserError where the environment asks for one, or for flags, that it cannot use."""
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the latter, without a word, where the driver is missing
        reason = f" ({shorten(str(error), 200)})" if str(error) else ""
        # That of the CPU starts unless its flags are wrong.
        hint = f"is no platform that JAX can use on this machine{reason}; unset it, or install JAX for it"
        for name, said in (("JAX_PLATFORMS", hint), ("XLA_FLAGS", f"JAX cannot start with it{reason}; correct it")):
            if (asked := os.environ.get(name, "")) and (name, asked) != ("JAX_PLATFORMS", "cpu"):
                raise UserError(name, asked, said) from None
        raise


def unused_accelerator(dev: Path = Path("/dev")) -> str | None:
    """Return a note on an accelerator that JAX leaves unused, though no JAX_PLATFORMS asks for the CPU; else None.

    Args:
      dev: the folder of device files.

    Raises:
      UserError: JAX_PLATFORMS or XLA_FLAGS names what JAX cannot use here.
    """
    if _default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS"):
        return None
    found = [names for pattern, names in DEVICE_FILES.items() if any(dev.glob(pattern))]
    if not found:
        return None
    kind, extra = found[0]
    return (
        f"warning: JAX computes on the CPU, though this machine has {with_article(kind)}; install JAX for it "
        f"(pip install -c constraints.txt -e '.[{extra}]'), or set JAX_PLATFORMS=cpu"
    )


def matmul_peak(dtype: str) -> float:
    """Return the operations per second of all devices together, in the compute dtype.

    Published for known chips in bfloat16. Elsewhere the best of a few square products; the simulated devices of one
    CPU share it, so they count once per process.
    """
    device = jax.devices()[0]
    published = [peak for kind, peak in PUBLISHED.items() if device.device_kind.startswith(kind)]
    if published and dtype == "bfloat16":
        return published[0] * jax.device_count()
    units = jax.process_count() if device.platform == "cpu" else jax.device_count()
    return measure(dtype, 1024 if device.platform == "cpu" else 8192) * units


def measure(dtype: str, size: int, repeats: int = 5) -> float:
    """Measure the operations per second of [size, size] products on one device.

    Args:
      dtype: of the matrices.
      size: their rows and columns.
      repeats: measurements, of which the best counts.
    """
    matrix = jnp.ones((size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    multiply(matrix, matrix).block_until_ready()
    return 2 * size**3 / min(_seconds(multiply, matrix) for _ in range(repeats))


def _seconds(multiply: "jax.stages.Wrapped", matrix: jax.Array) -> float:
    began = time.perf_counter()
    multiply(matrix, matrix).block_until_ready()
    return time.perf_counter() - began
