"""Two names in a file system change places in one step, where the operating system can do that."""

import ctypes
import errno
import os

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # an old kernel, or a file system that cannot


def exchange(one: str, other: str) -> bool:
    """Let two paths of one file system change places; return False, with nothing changed, where that is not possible.

    Raises:
      OSError: one of them is missing or may not be renamed.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # of Linux
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), one, None, other)
