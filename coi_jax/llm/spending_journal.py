"""A worker's journal of the money that it sets aside and spends: what it did is known when it is killed.

A line of the file is a number of dollars: what a call may cost, when it is made, and what of it was not needed, when it
is done. The sum is what the worker may have spent. A lock that the operating system drops with the process tells
whether the worker lives.
"""

import errno
import fcntl
import os
from typing import IO

from coi_jax.common.errors import UserError, naming
from coi_jax.common.storage import PathLike


class Journal:
    """The journal of this worker, which counts as living for as long as this object does."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, dollars: float) -> None:
        """Append a line; on return it survives the end of this process. Raise OSError where there is no room for it."""
        line = f"{dollars!r}\n".encode()
        with naming(self._file.name):
            if self._file.write(line) < len(line):  # as the last bytes of a disk take a part of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_journal(path: PathLike) -> Journal | None:
    """Return a new journal at a path; None where the file system has no locks."""
    file = open(path, "ab", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        os.unlink(path)
        return None
    return Journal(file)


def dollars_of_dead(path: PathLike) -> float | None:
    """Return the sum of a journal whose worker has ended; None where it lives, or there is no journal."""
    try:
        with naming(path), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return max(_sum(file.read()), 0.0)
    except (FileNotFoundError, BlockingIOError):
        return None
    except ValueError:
        hint = "is damaged; remove it, and its worker counts with all that it had leased"
        raise UserError("budget", path, hint) from None


def _sum(data: bytes) -> float:
    """Return the sum of all whole lines; a last one that was cut short was written for a call that was never made."""
    return sum(float(line) for line in data[: data.rfind(b"\n") + 1].split())
