"""Child processes that end with the process that started them, also where that was killed, and know no secrets.

The parent starts a child with `environment()`, and every command of the project calls `end_with_parent` first. A child
gets the keys and passwords of the environment that its own work needs, and no others (`without_secrets`).
"""

import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping

PARENT = "COI_JAX_PARENT_PROCESS"
POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # of prctl(2)
# Names of variables that hold secrets, as OPENAI_API_KEY; those that read files and log metrics may be needed.
_SECRET = re.compile(r"(^|_)(AUTH|CREDENTIALS?|KEY|PASSWD|PASSWORD|PAT|SECRET|TOKEN)(_|$)", re.IGNORECASE)
STORES = ("AWS_", "AZURE_", "GCS_", "GOOGLE_", "HF_", "HUGGING_FACE_", "S3_")
TRACKERS = ("WANDB_", "MLFLOW_")


def environment() -> dict[str, str]:
    """Return the environment variables of a child that is to end with this process."""
    return {PARENT: str(os.getpid())}


def without_secrets(variables: Mapping[str, str], keep: tuple[str, ...] = ()) -> dict[str, str]:
    """Return environment variables without those that hold keys, tokens and passwords, by their names.

    Args:
      variables: by name.
      keep: how the names of those begin that are needed, as `STORES`.
    """
    return {name: text for name, text in variables.items() if name.startswith(keep) or not _SECRET.search(name)}


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
