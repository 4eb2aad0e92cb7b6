"""What a command says of an error that is the user's, the machine's or the network's to mend; any other is a defect."""

import errno
import os
import re
import traceback

from coi_jax.common.errors import UserError, shorten

STANDARD_OUTPUT = "standard output"

# What the user's machine or the path that was given is to blame for.
UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)
# Those that reach the Hub and buckets; few of their errors are the operating system's.
NETWORK_LIBRARIES = ("requests.", "aiohttp.", "httpx.", "gcsfs.", "google.auth.", "google.api_core.")

# What XLA says where a device, or the machine of a CPU, has too little memory.
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
LESS_MEMORY = (
    "take fewer examples or rows at once (config.data.batch, config.evaluation.batch), more config.train.microbatches, "
    "a config.model.remat that keeps less, or lora; then run the same command again"
)


def explain(error: Exception) -> str | None:
    """Return an error in one line, with what to do about it; None for a defect, whose traceback is of use."""
    if isinstance(error, UserError):
        return str(error)
    if is_of_network(error):
        return f"network: {shorten(str(error), 200)}; run the same command again when it can be reached"
    match error:
        case ValueError():
            return _refused_setting_of_jax(error)
        case RuntimeError() if OUT_OF_MEMORY in str(error):
            reason, _, _ = str(error).partition("\n")
            return f"memory: {reason}; {LESS_MEMORY}"
        case MemoryError():
            return f"memory: there is no more that this process may use (see ulimit -v); {LESS_MEMORY}"
        case OSError() if error.errno is not None:
            return f"{error.filename or 'system'}: {error.strerror}; {_mend(error)}"
    return None


def is_of_network(error: Exception) -> bool:
    """Return whether an error says that another machine cannot be reached: by its type, or by the library it is of."""
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith(NETWORK_LIBRARIES)


def _refused_setting_of_jax(error: ValueError) -> str | None:
    """Return what is wrong with an environment variable because of which JAX cannot be imported, else None."""
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    named = re.search(r"\bjax_\w+", str(error), re.IGNORECASE)
    if named is None or not frames[-1].endswith("jax/_src/config.py") or named[0].upper() not in os.environ:
        return None
    name = named[0].upper()
    return str(UserError(name, os.environ[name], f"{error}; correct or unset it"))


def _mend(error: OSError) -> str:
    """Return what the user can do about what the system says of a file."""
    if error.filename == STANDARD_OUTPUT:
        return "make room where it goes, or send it elsewhere, and run the same command again"
    if error.errno in UNWRITABLE:
        return "make room or choose another folder and run the same command again"
    return "check the file and the disk that it is on, and run the same command again"
