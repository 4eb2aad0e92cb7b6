"""Finds the whole checkpoints of a run without importing JAX, which would keep the accelerator from the run itself."""

import re

from coi_jax.common.storage import PathLike, as_path

# Orbax gives an unfinished checkpoint another name. In a bucket of Google Cloud, where nothing can be renamed at once,
# it writes this file into a finished one.
COMMITTED = "commit_success.txt"


def steps(folder: PathLike) -> list[int]:
    """Return the steps that have a whole checkpoint, ascending."""
    root = as_path(folder)
    if not root.is_dir():
        return []
    found = [entry for entry in root.iterdir() if re.fullmatch(r"[0-9]+", entry.name)]
    return sorted(int(entry.name) for entry in found if not needs_commit(root) or (entry / COMMITTED).exists())


def needs_commit(folder: PathLike) -> bool:
    """Return whether Orbax marks finished checkpoints of a folder by a file."""
    return str(folder).startswith("gs://")
