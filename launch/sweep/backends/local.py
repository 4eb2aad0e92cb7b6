"""The local backend: points run one after another as child processes of this one."""

import contextlib
import datetime
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import IO, Any

from etils import epath

from coi_jax.common import child_processes
from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import folder_lock
from coi_jax.common.storage import AppendFile
from launch.sweep.backends.protocol import LOG, Outcome, Status
from launch.sweep.point_state import claim, is_scored, is_trained
from launch.sweep.points import Point

# Environment variables of a child unless the user sets them. XLA on a CPU takes its buffers from malloc anew at
# every step; on huge pages a fifth of the quickstart's step, spent in page faults, is saved.
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# A child that ends by one of these was told to go; its run is whole and goes on when it is started again.
PREEMPTING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

SWEEP_LOCK = ".sweep.lock"  # of a point's folder; the trainer and the evaluator have locks of their own


class LocalBackend:
    """Runs points in child processes; once told to stop it passes that on and starts no other.

    Inside `with LocalBackend() as backend:` the first Ctrl-C, SIGTERM or SIGHUP asks the running child to save and end,
    a second one ends it at once. A child also saves and ends where this process is killed. A signal that was ignored,
    as `nohup` ignores SIGHUP, stays ignored.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> "LocalBackend":
        heeded = [number for number in PREEMPTING if signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._stop) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        again, self.stopped = self.stopped, True
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL if again else signal.SIGTERM)
        if not again:
            with contextlib.suppress(OSError):  # the terminal may have gone
                print("stopping: the run is being saved; press Ctrl-C again to end it at once", file=sys.stderr)

    def run(self, point: Point) -> Outcome:
        """Train and evaluate a point, as far as that is not done yet and no other sweep is at it."""
        claim(point)
        try:
            with folder_lock(point.folder, "--out", SWEEP_LOCK):
                return self._run_locked(point)
        except UserError as error:
            return Outcome(point, "failed", str(error))

    def _run_locked(self, point: Point) -> Outcome:
        for name, is_complete, command in (
            ("train", is_trained, train_command(point)),
            ("evaluate", is_scored, evaluate_command(point)),
        ):
            if is_complete(point):
                continue
            if self.stopped:
                return Outcome(point, "preempted", f"stopped before {name}")
            status = self._call(command, point.folder / LOG)
            if status != 0 or self.stopped or not is_complete(point):
                return Outcome(point, *self._explain(name, status, point))
        return Outcome(point, "done", "")

    def _explain(self, name: str, status: int, point: Point) -> tuple[Status, str]:
        if self.stopped or -status in PREEMPTING or status - 128 in PREEMPTING:
            return "preempted", f"{name} was stopped"
        if status == 0:
            return "preempted", f"{name} ended before it was through"
        if status < 0:
            hint = "; was there too little memory?" if -status == signal.SIGKILL else ""
            return "failed", f"{name} was ended by {signal.Signals(-status).name}{hint}"
        return "failed", f"{name} exited with status {status}: {_last_line(point.folder / LOG)}"

    def _call(self, command: list[str], log: epath.Path) -> int:
        """Run a command in a process group of its own, so that Ctrl-C reaches it only through `_stop`."""
        with AppendFile(log) as file, self._start(command) as child:
            now = datetime.datetime.now().isoformat(" ", "seconds")
            file.write(f"\n# {now} {shlex.join(['python', *command[1:]])}\n")
            for line in _lines(child):
                file.write(line)
                with contextlib.suppress(OSError) if self.stopped else contextlib.nullcontext():
                    print(line, end="", flush=True)
        self._child = None
        return child.returncode

    def _start(self, command: list[str]) -> "subprocess.Popen[str]":
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**ENVIRONMENT, **os.environ, **child_processes.environment()},
            start_new_session=True,
        )
        return self._child


def _lines(child: "subprocess.Popen[str]") -> Iterator[str]:
    output: IO[str] | None = child.stdout
    assert output is not None
    yield from output


def _last_line(log: epath.Path) -> str:
    lines = [line for line in log.read_bytes().decode("utf-8", "replace").split("\n") if line.strip()]
    return f"{lines[-1].strip()} (all of it in {log})"


def train_command(point: Point) -> list[str]:
    """Return the command that trains a point."""
    return _python(
        "coi_jax.train", "--config", point.base, "--workdir", str(point.folder), *override_flags(point.overrides)
    )


def evaluate_command(point: Point) -> list[str]:
    """Return the command that scores a point on the test sets of its config, which one that is not tuned needs too."""
    config = [] if point.is_tuned else ["--config", point.base, *override_flags(point.overrides)]
    tests = ",".join(point.config.evaluation.tests)
    return _python("coi_jax.evaluate", *config, "--workdir", str(point.folder), "--tasks", tests)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def override_flags(overrides: Mapping[str, Any]) -> list[str]:
    """Return overrides as the flags that `coi_jax.common.cli.split_overrides` reads back: `--config.seed=1`."""
    return [f"--config.{name}={value if isinstance(value, str) else repr(value)}" for name, value in overrides.items()]
