"""The machine of a measurement: processor, accelerator and versions, for the JSON of every benchmark."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "transformers", "peft", "accelerate", "google-tunix")


def describe() -> dict[str, Any]:
    """Return the machine and the versions of what is compared; packages that are not installed are left out."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),  # of the last minute, when this was asked: a quiet machine has about 0
        "python": platform.python_version(),
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Return the versions of what is compared, in this environment."""
    return dict(filter(None, map(_version, PACKAGES)))


def processor() -> str:
    """Return the processor's model, family and number: virtual machines often hide the first."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return ", ".join(f"{name} {fields[name]}" for name in ("model name", "cpu family", "model") if name in fields)


def _version(package: str) -> tuple[str, str] | None:
    try:
        return package, importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
