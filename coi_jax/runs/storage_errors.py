"""What Orbax and TensorStore raise where storage fails while the files may be sound: a full disk, a failing read."""

import errno
import os
import re
import warnings
from collections.abc import Iterator

from coi_jax.common.errors import UserError, shorten
from coi_jax.common.storage import PathLike

TENSORSTORE = re.compile(r"[A-Z]{5,}(_[A-Z]+)*: ")  # begins its errors, which are ValueErrors: "UNAVAILABLE: ..."
# Errors of the operating system that tell of the files, and not of the storage that they are on.
OF_FILES = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class storage_errors:
    """Turn the several errors in which a write of Orbax reports what storage says into one that names the folder.

    Raises:
      OSError: of the operating system, as a full disk.
      UserError: of a bucket, as far as TensorStore has not tried it again with success.
    """

    def __init__(self, folder: PathLike) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, UserError):
            return
        # Orbax leaves the writes of the other arrays, and Python would tell of each.
        warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)
        chain = list(_chain(error))
        if number := next((number for number in map(error_number, chain) if number and number not in OF_FILES), None):
            raise OSError(number, os.strerror(number), str(self._folder)) from None
        if reasons := [str(each) for each in chain if isinstance(each, ValueError) and TENSORSTORE.match(str(each))]:
            hint = f"cannot be written ({shorten(reasons[0])}); run the same command again when it can"
            raise UserError("checkpoint", self._folder, hint) from None


def error_number(error: BaseException) -> int | None:
    """Return the number of the operating system's error that an exception is, or that TensorStore tells in its text."""
    if isinstance(error, OSError):
        return error.errno
    if told := re.search(r"os_error_code='(\d+)'", str(error)):
        return int(told[1])
    return errno.ENOSPC if "No space left on device" in str(error) else None


def failed_read(error: BaseException, path: PathLike) -> OSError | None:
    """Return the error of a read that storage failed, which says nothing of the files; None for any other.

    Args:
      error: any.
      path: that was read, which the error names that TensorStore reports.
    """
    number = error_number(error)
    if number is None or number in OF_FILES:
        return None
    return error if isinstance(error, OSError) else OSError(number, os.strerror(number), os.fspath(path))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
