"""Child processes that end with the process that started them, also where that was killed.

The parent starts a child with `environment()`, and every command of the project calls `end_with_parent` first.
"""

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "COI_JAX_PARENT_PROCESS"
POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # of prctl(2)


def environment() -> dict[str, str]:
    """Return the environment variables of a child that is to end with this process."""
    return {PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Send this process SIGTERM once its parent has ended, where the parent asked for that by `environment`.

    Linux sends it at once. Elsewhere a thread looks for the parent twice a second.
    """
    parent = os.environ.pop(PARENT, "")  # which is not the parent of this process's own children
    if not parent.isdecimal():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        _end_if_orphaned(int(parent))  # it may have ended before the call
    else:
        threading.Thread(target=watch_parent, args=(int(parent),), daemon=True).start()


def watch_parent(parent: int) -> None:
    """Return after sending this process SIGTERM, when its parent has ended."""
    while not _end_if_orphaned(parent):
        time.sleep(POLL_SECONDS)


def _end_if_orphaned(parent: int) -> bool:
    is_orphaned = os.getppid() != parent
    if is_orphaned:
        os.kill(os.getpid(), signal.SIGTERM)
    return is_orphaned
