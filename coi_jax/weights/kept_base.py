"""One copy of base weights on the devices, kept in this process for its next runs that use the same weights.

Nothing is kept unless a process asks for it with `keeping`, as the workers of a sweep do. One copy is kept at most:
whoever needs the memory for other weights calls `drop` before loading them. JAX is not imported here.
"""

import contextlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

Params = dict[str, Any]  # as in `coi_jax.models`


@dataclass
class _Kept:
    is_enabled: bool = False
    key: Hashable = None
    params: Params | None = None


_kept = _Kept()


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """Keep base weights between the runs inside the block."""
    _kept.is_enabled = True
    try:
        yield
    finally:
        _kept.is_enabled = False
        drop()


def is_enabled() -> bool:
    """Return whether this process keeps base weights."""
    return _kept.is_enabled


def put(key: Hashable, params: Params) -> None:
    """Keep weights, in place of those kept before.

    Args:
      key: of the weights and the way they are held.
      params: that nothing donates while they are kept.
    """
    if _kept.is_enabled:
        _kept.key, _kept.params = key, params


def take(key: Hashable) -> Params | None:
    """Return the weights that are kept under a key, which may be donated then; None, and drop others, where none is."""
    params = _kept.params if _kept.key == key else None
    drop()
    return params


def drop() -> None:
    """Free the devices of what is kept."""
    _kept.key = _kept.params = None
