"""The worker of a sweep as its parent sees it: a process that runs commands one after another."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from coi_jax.common import child_processes
from launch.sweep.devices import DeviceShare

# Environment variables of a worker unless the user sets them. XLA on a CPU takes its buffers from malloc anew at
# every step; on huge pages a fifth of the quickstart's step, spent in page faults, is saved.
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

WAIT_SECONDS = 10  # for a worker that has nothing to do to end


class WorkerProcess:
    """Starts `launch.sweep.worker` when it is needed, also after it was killed, and hands it commands.

    The process is a group of its own, so that Ctrl-C in a terminal reaches it only through `interrupt`. It ends with
    the thread that started it.

    Args:
      share: of this machine's devices.
    """

    def __init__(self, share: DeviceShare) -> None:
        self._share = share
        self._marker = f"\x1e{secrets.token_hex(8)} "  # before an exit status; no command prints it by chance
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()  # between starting a command and an interruption
        self._is_interrupted = False

    def run(self, command: Sequence[str], write: Callable[[str], None]) -> int:
        """Run a command; return its exit status, or the negative number of the signal that ended the worker.

        Args:
          command: a module and its arguments.
          write: gets its output, line by line.
        """
        with self._lock:
            if self._is_interrupted:
                return -signal.SIGTERM
            process = self._send(command)
        assert process.stdout is not None
        for line in process.stdout:
            text, is_end, status = line.partition(self._marker)
            if text:
                write(text)
            if is_end:
                return int(status)
        return process.wait()

    def _send(self, command: Sequence[str]) -> "subprocess.Popen[str]":
        """Write a command to the process, a new one where there is none that runs."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed a moment ago: its output ends
            self._process.stdin.write(json.dumps([*command]) + "\n")
            self._process.stdin.flush()
        return self._process

    def _environment(self) -> dict[str, str]:
        """Return the variables of a worker, which trains and evaluates, and asks no language model."""
        own = child_processes.without_secrets(os.environ, child_processes.STORES + child_processes.TRACKERS)
        return {**ENVIRONMENT, **own, **self._share.environment, **child_processes.environment()}

    def _start(self) -> "subprocess.Popen[str]":
        cores = map(str, self._share.cores)
        return subprocess.Popen(
            [sys.executable, "-m", "launch.sweep.worker", self._marker, *cores],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=self._environment(),
            start_new_session=True,
        )

    def interrupt(self, number: signal.Signals) -> None:
        """Send a signal to the process and those that it started; no command is run from now on."""
        with self._lock:
            self._is_interrupted = True
            if self._process is not None and self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)

    def close(self) -> None:
        """End the process, if there is one, and free what it holds; the next command starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
