"""Ctrl-C ends a command with one line and status 130, whatever it is doing.

Python raises KeyboardInterrupt wherever the program is. Four places need more than that:

- Before the command runs, and within any import, the process ends at once. An extension module whose initialization
  is cut short prints a traceback of its own, raises an error of its own, or crashes. To be installed before anything
  else is imported, this module imports at first only what Python has loaded for `python -m` already.
- A command that has ended keeps its status while the interpreter shuts down, which takes a second with TensorFlow.
- Python drops exceptions of callbacks, as of the garbage collector's. The interrupt is then sent again.
- A library may turn the interrupt into an error of its own, which then is an interrupt again.
"""

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

EXIT_STATUS = 130
LINE = "interrupted; run the same command again"
AGAIN_SECONDS = 0.1  # until an interrupt that was dropped is sent again

_running = False  # whether the command has begun, and turns KeyboardInterrupt into a line
_interrupted = False


def install_in_commands() -> None:
    """Install the handler where this process is a command of the importing package, not a program that uses it.

    `python -m` names itself `-m` for as long as it imports the package of the module that it is going to run.
    """
    is_command = sys.argv[:1] == ["-m"] or os.path.basename(sys.argv[0]).startswith("coi-")
    if is_command and _install():
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the first registered is called last


def _install() -> bool:
    """Install the handler, unless interrupts are ignored, as in a shell's background, or another's."""
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _interrupt):
        signal.signal(signal.SIGINT, _interrupt)
        return True
    return False


def _interrupt(_number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    if not _running or _is_importing(frame):
        os.write(sys.stderr.fileno(), f"{LINE}\n".encode())
        os._exit(EXIT_STATUS)
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def as_keyboard_interrupt() -> Iterator[None]:
    """Let every Ctrl-C inside the block end it as KeyboardInterrupt, within imports the process."""
    global _running, _interrupted
    before = signal.getsignal(signal.SIGINT)
    if not _install():
        yield
        return
    _running, _interrupted = True, False
    hook, sys.unraisablehook = sys.unraisablehook, _send_again(sys.unraisablehook)
    try:
        yield
    except Exception:
        if _interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        _running, sys.unraisablehook = False, hook
        signal.signal(signal.SIGINT, before)


Hook = Callable[["sys.UnraisableHookArgs"], object]


def _send_again(hook: Hook) -> Hook:
    """Return a hook of unraisable exceptions that sends an interrupt again, and passes all others to `hook`."""
    import threading  # only once the handler is installed

    def unraisable(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook(dropped)
            return
        timer = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()

    return unraisable
