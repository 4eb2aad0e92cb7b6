"""Several processes that work as one, one on each host: their start-up, and work that the primary process does for all.

Every process runs the same command and the same computations on its part of the global arrays. What is not a
computation is done once, by the primary process: it alone writes files, starts other programs and reports progress.
The run folder, the dataset and the token caches are where all of them can read, as in a bucket.
"""

import contextlib
import importlib.util
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from coi_jax.common import progress
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path, is_local, make_folder, user_cache
from coi_jax.parallel.hardware import unused_accelerator

# The environment variables that name the other processes, where no cluster does.
COORDINATOR, PROCESS_COUNT, PROCESS_INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

COMPILATION_CACHE = "JAX_COMPILATION_CACHE_DIR"  # which JAX reads itself
DAY_MS = 24 * 60 * 60 * 1000  # the longest that others wait for the primary process: it may be writing token caches
QUIET_SECONDS = 15  # after which a process says that it waits for the others
LEAVE_SECONDS = 120  # that a process at its end waits for the others, before all are stopped


def start_jax(*, heeds_sigterm: bool = False) -> None:
    """Join the other hosts where the environment names them, and keep compiled programs between runs.

    Args:
      heeds_sigterm: the command asks JAX whether a host got SIGTERM, which else ends it as any other.
    """
    jax.config.update("jax_enable_preemption_service", heeds_sigterm)
    join()
    _keep_compiled_programs()
    for name in ("absl", "asyncio"):  # Orbax raises its errors, and logs them with tracebacks too
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if note := unused_accelerator():
        log_primary(note)


def _keep_compiled_programs() -> None:
    """Let JAX keep compiled programs where the user says, else in the user's cache folder, if that can be written.

    The folder is made here: where it cannot be, JAX would warn of each program.
    """
    asked = os.environ.get(COMPILATION_CACHE)
    if asked is None:
        with contextlib.suppress(OSError, UserError):  # of a user without a home folder
            folder = user_cache() / "xla"
            folder.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(folder))
    elif asked and is_local(asked):
        make_folder(asked, COMPILATION_CACHE)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def join() -> None:
    """Join the other processes, where the environment names any; call it before JAX computes anything.

    Raises:
      UserError: a number is no number, or they do not find each other.
    """
    if jax.distributed.is_initialized() or not are_several():
        return
    count, index = _number(PROCESS_COUNT), _number(PROCESS_INDEX)
    try:
        with _note_of_waiting():
            jax.distributed.initialize(num_processes=count, process_id=index, shutdown_timeout_seconds=LEAVE_SECONDS)
    except (ValueError, RuntimeError) as error:
        address = os.environ.get(COORDINATOR, "not set")
        hint = f"{str(error).splitlines()[0]} Set {PROCESS_COUNT}, {PROCESS_INDEX} too; start the command on every host"
        raise UserError(COORDINATOR, address, hint) from None
    if not is_primary():
        progress.hide()


@contextlib.contextmanager
def _note_of_waiting() -> Iterator[None]:
    """Say that other processes are waited for, where that takes long."""
    line = f"waiting for the other processes ({COORDINATOR}={os.environ.get(COORDINATOR, 'not set')})"
    timer = threading.Timer(QUIET_SECONDS, lambda: print(line, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def are_several() -> bool:
    """Return whether the environment names other processes: directly, or as the hosts of one or several slices."""
    if COORDINATOR in os.environ or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ:
        return True
    for variable in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        if variable in os.environ:
            return "," in os.environ[variable]
    return _is_cloud_tpu()


def _is_cloud_tpu() -> bool:
    """Return whether this is a TPU VM, which asks Google Cloud for its slice: JAX sets a variable where it is not."""
    wants_tpu = "tpu" in os.environ.get("JAX_PLATFORMS", "tpu")
    return wants_tpu and "TPU_SKIP_MDS_QUERY" not in os.environ and importlib.util.find_spec("libtpu") is not None


def _number(variable: str) -> int | None:
    if variable not in os.environ:
        return None
    text = os.environ[variable]
    if not text.isdecimal():
        raise UserError(variable, text, "give a whole number")
    return int(text)


def is_primary() -> bool:
    """Return whether this process is the primary one, which writes files and reports progress."""
    return jax.process_index() == 0


def print_primary(line: str) -> None:
    """Print a line on the primary process alone."""
    if is_primary():
        print(line, flush=True)


def log_primary(line: str) -> None:
    """Print a line on standard error, on the primary process alone."""
    if is_primary():
        print(line, file=sys.stderr, flush=True)


def on_primary(work: Callable[[], Any]) -> Any:
    """Call `work` on the primary process while the others wait; return its result on every process.

    Args:
      work: returns JSON.

    Raises:
      UserError, OSError: raised by `work`, on every process.
      RuntimeError: on the others, where `work` failed otherwise.
    """
    if jax.process_count() == 1:
        return work()
    result, error = _result_or_error(work) if is_primary() else (None, None)
    multihost.get_barrier_sync_fn()(key="on_primary", timeout_ms=DAY_MS)  # a collective must not wait for so long
    reply = json.loads(_broadcast(json.dumps({"result": result, "error": _error_to_json(error)})))
    if error is not None:
        raise error
    if reply["error"]:
        raise _error_from_json(*reply["error"])
    return reply["result"]


def _result_or_error(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _error_to_json(error: Exception | None) -> list[Any] | None:
    """Return an error as JSON: its kind, and the arguments of its class."""
    if error is None:
        return None
    if isinstance(error, UserError):
        return ["user", error.field, str(error.value), error.hint]
    if isinstance(error, OSError):
        return ["os", error.errno, error.strerror, str(error.filename)]
    return ["other", f"the primary process failed: {type(error).__name__}: {error}"]


def _error_from_json(kind: str, *parts: Any) -> Exception:
    kinds: dict[str, type[Exception]] = {"user": UserError, "os": OSError, "other": RuntimeError}
    return kinds[kind](*parts)


def _broadcast(text: str) -> str:
    """Return the primary process's text on every process."""
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(data), np.int32)))
    padded = np.zeros(1 << size.bit_length(), np.uint8)  # few shapes, as each is compiled
    if is_primary():
        padded[:size] = data
    return bytes(multihost_utils.broadcast_one_to_all(padded)[:size]).decode("utf-8")


def on_any(flag: bool) -> bool:
    """Return whether a flag is set on any process; every process calls it."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def check_shared(field: str, path: PathLike) -> None:
    """Raise UserError, on every process, where one of them does not see a file that the primary one has written."""
    seen = multihost_utils.process_allgather(np.asarray(bool(as_path(path).exists())))
    if not np.all(seen):
        hint = f"is not seen by process {int(np.argmin(seen))}; name a folder that all hosts share"
        raise UserError(field, path, hint)
