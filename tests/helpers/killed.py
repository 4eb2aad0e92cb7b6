"""Commands that are killed at moments drawn from a seed, and started again until they are done.

A command runs in a process group of its own, forked from a server that has imported what is slow to import.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

Condition = Callable[[Path], bool]
LATEST = 0.03  # seconds after an event that a kill comes at most
POLL = 0.001  # seconds between two looks at the folder
SECONDS = 300.0  # after which something hangs

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "coi_jax.training.trainer",
        "coi_jax.evaluation.evaluator",
        "coi_jax.weights.conversion",
        "data_pipeline.build.build_job",
        "tests.helpers.kill_targets",
    ]
)


@dataclasses.dataclass(frozen=True)
class Victim:
    """A command, and what it owes.

    Attributes:
      command: runs in the process that is killed, on a folder; returns an exit status.
      end: everything that two folders of finished commands have in common.
      events: by the name of a phase, what can be seen in the folder when the phase has begun.
      lost: how much of what was done is done again after a kill, in the command's own unit.
      mark: what is remembered of a folder after each kill.
      settle: checks a folder at the end against all that was remembered.
      environment: variables of the process.
    """

    command: Callable[[Path], int]
    end: Callable[[Path], dict[str, Any]]
    events: Mapping[str, Condition]
    lost: Callable[[Path], int] = lambda _: 0
    mark: Callable[[Path], Any] = lambda _: None
    settle: Callable[[Path, list[Any]], None] = lambda _, marks: None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def run(command: Callable[[Path], int], folder: Path, environment: Mapping[str, str], log: Path) -> None:
    """What the process does; it leads a process group, which its children belong to."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    with mock.patch("coi_jax.parallel.hardware.matmul_peak", return_value=1e12):
        sys.exit(command(folder))


class Run:
    """A command in a process group of its own."""

    def __init__(self, victim: Victim, folder: Path, index: int = 0) -> None:
        self._victim, self._folder = victim, folder
        self.log = folder.parent / f"{folder.name}.{index}.log"
        environment = {"XLA_FLAGS": "", "XDG_CACHE_HOME": str(folder.parent / "cache"), **victim.environment}
        arguments = (victim.command, folder, environment, self.log)
        self._process: ForkServerProcess = _processes.Process(target=run, args=arguments)
        self._process.start()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to all of the group, or to the process that has not made it yet."""
        assert self._process.pid
        with contextlib.suppress(ProcessLookupError):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                os.kill(self._process.pid, number)

    def is_running(self) -> bool:
        return self._process.exitcode is None

    def wait(self) -> int:
        """The exit status, or minus the signal."""
        self._process.join(SECONDS)
        status = self._process.exitcode
        self.send(signal.SIGKILL)
        assert status is not None, f"still running after {SECONDS} s:\n{self.said()}"
        return status

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:] if self.log.exists() else ""

    def wait_until(self, condition: Condition, delay: float, seconds: float = SECONDS) -> bool:
        """Waits for a condition and then some time; False where the command ended first."""
        deadline = time.monotonic() + seconds
        while self.is_running() and time.monotonic() < deadline and not condition(self._folder):
            time.sleep(POLL)
        end = time.monotonic() + delay
        while self.is_running() and time.monotonic() < end:
            time.sleep(min(POLL, max(0.0, end - time.monotonic())))
        return self.is_running()


def phase(victim: Victim, folder: Path) -> str:
    """The last phase whose event can be seen in a folder."""
    seen = [name for name, condition in victim.events.items() if condition(folder)]
    return seen[-1] if seen else "start"


@dataclasses.dataclass
class Tally:
    """What kills did: how many came in which phase, and what was done again at most and in all."""

    kills: int = 0
    ends: int = 0
    phases: dict[str, int] = dataclasses.field(default_factory=dict)
    most_again: int = 0
    all_again: int = 0

    def add(self, victim: Victim, folder: Path) -> None:
        """Count a kill by what it left."""
        self.kills += 1
        name, lost = phase(victim, folder), victim.lost(folder)
        self.phases[name] = self.phases.get(name, 0) + 1
        self.most_again, self.all_again = max(self.most_again, lost), self.all_again + lost


def kill_often(
    victim: Victim, prepare: Callable[[], Path], kills: int, seed: int, seconds: float, wanted: dict[str, Any]
) -> Tally:
    """Kill a command so often, on one folder after the other, and compare each end with the one that is wanted.

    Every other kill comes at a moment of the time that a whole run takes; the others follow an event, in turn.

    Args:
      victim: the command.
      prepare: makes a folder in which nothing has been done.
      kills: how many, in all.
      seed: moments follow from it.
      seconds: of a run that nothing interrupted.
      wanted: its end.
    """
    chance, tally, names = random.Random(seed), Tally(), list(victim.events)
    folder, marks = prepare(), []
    while tally.kills < kills:
        run, number = Run(victim, folder), tally.kills + tally.ends
        if number % 2 or not names:
            is_hit = run.wait_until(lambda _: True, chance.uniform(0, seconds))
        else:
            event = victim.events[names[number // 2 % len(names)]]
            is_hit = run.wait_until(event, chance.uniform(0, LATEST))
        if is_hit:
            run.send(signal.SIGKILL)
        if run.wait() == -signal.SIGKILL:
            tally.add(victim, folder)
            marks.append(victim.mark(folder))
        else:
            _check_end(run, victim, folder, marks, wanted, f"--soak_seed {seed}, kill {tally.kills}")
            tally.ends, folder, marks = tally.ends + 1, prepare(), []
    _check_end(Run(victim, folder), victim, folder, marks, wanted, f"--soak_seed {seed}, the last run")
    return tally


def _check_end(run: Run, victim: Victim, folder: Path, marks: list[Any], wanted: dict[str, Any], where: str) -> None:
    """Check that a command that was killed before ended well, as one that was not."""
    assert run.wait() == 0, f"{where}: {run.said()}"
    found = victim.end(folder)
    differ = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    assert not differ, f"{where}: {differ} differ: {run.said()}"
    victim.settle(folder, marks)


def measure(victim: Victim, folder: Path) -> tuple[float, dict[str, Any]]:
    """How long a command takes that nothing interrupts, and its end."""
    start, run = time.monotonic(), Run(victim, folder)
    assert run.wait() == 0, run.said()
    return time.monotonic() - start, victim.end(folder)
