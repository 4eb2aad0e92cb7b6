"""One process at a time works in a folder: a lock that ends with the process that holds it, however that ends.

The operating system keeps the lock (`flock`) and the file in the folder says who holds it. A bucket has no locks: there
the file is in the user's cache folder, and keeps apart the processes of one machine.
"""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Iterator

from coi_jax.common.errors import UserError, shorten
from coi_jax.common.json_reader import parse_json
from coi_jax.common.storage import PathLike, is_local, user_cache, writable

LOCK = ".lock"
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems without locks, as some network ones


@contextlib.contextmanager
def folder_lock(folder: PathLike, field: str, name: str = LOCK) -> Iterator[None]:
    """Hold the lock of a folder inside the block; the folder is created.

    Args:
      folder: local, or in a bucket, where only processes of this machine are kept apart.
      field: the name of the folder in an error.
      name: of the lock file, for work in the same folder that needs a lock of its own.

    Raises:
      UserError: another process works in the folder (it is named), there is a file in its place, or
        it cannot be created.
    """
    path = _lock_path(folder, name)
    if path.parent.exists() and not path.parent.is_dir():
        raise UserError(field, folder, "is a file; name a folder")
    is_new = not path.parent.exists()
    with writable(path.parent, field):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path)
    if handle is None:
        raise UserError(field, folder, f"is in use by {_holder(path)}; wait until it ends, or name another folder")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while the lock is still held, so that it is nobody else's file
        os.close(handle)
        if is_new:
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # where nothing was written into it


def is_held(folder: PathLike, name: str = LOCK) -> bool:
    """Return whether a process holds the lock of a folder; of one in a bucket, whether one of this machine does.

    Args:
      folder: that may be in use.
      name: of the lock file.
    """
    path = _lock_path(folder, name)
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    finally:
        os.close(handle)
    return False


def _lock_path(folder: PathLike, name: str) -> pathlib.Path:
    if is_local(folder):
        return pathlib.Path(folder) / name
    url = hashlib.sha256(os.fspath(folder).rstrip("/").encode("utf-8")).hexdigest()
    return user_cache() / "locks" / url[:32] / name


def _acquire(path: pathlib.Path) -> int | None:
    """Return the handle of a lock file that this process has locked; None where another process has."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                os.close(handle)
                raise
            print(f"{path.parent} cannot be locked ({error.strerror}): run one process in it", file=sys.stderr)
        if _is_at(handle, path):
            os.truncate(handle, 0)
            os.write(handle, json.dumps(_this_process()).encode("utf-8"))
            return handle
        os.close(handle)  # the process before removed the file between the two calls


def _is_at(handle: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, str | int]:
    since = datetime.datetime.now().isoformat(" ", "seconds")
    return {"process": os.getpid(), "host": platform.node(), "command": shlex.join(sys.orig_argv), "since": since}


def _holder(path: pathlib.Path) -> str:
    """Return who holds a lock, in words."""
    try:
        found = parse_json(path.read_bytes())
        where = "" if found["host"] == platform.node() else f" on {found['host']}"
        return f"process {found['process']}{where} since {found['since']} ({shorten(found['command'], 120)})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
