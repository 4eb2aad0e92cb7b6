"""Folders that belong to a living process: the operating system keeps a lock on them that ends with the process.

A lock on a folder (`flock`) needs no file in it, so it stays with the folder when that gets another name.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator


def hold(folder: str) -> int | None:
    """Return the handle that holds a new local folder until it is closed; None where another process removed it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):  # a file system without locks, as some network ones
        fcntl.flock(handle, fcntl.LOCK_EX)
    if os.path.isdir(folder):
        return handle
    os.close(handle)
    return None


@contextlib.contextmanager
def claim(folder: str) -> Iterator[bool]:
    """Yield whether no process holds a local folder, and none can during the block; False where that is not known."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = True
    except OSError:
        is_free = False
    try:
        yield is_free
    finally:
        os.close(handle)


def is_held(folder: str) -> bool:
    """Return whether a process holds a local folder; also where that is not known."""
    with claim(folder) as is_free:
        return not is_free
