"""Signals that end training: a request to save and stop, which the loop asks for between steps."""

import os
import signal
import sys
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Termination:
    """Turns SIGTERM, Ctrl-C and SIGHUP into a request that the loop checks between steps; the second ends the process.

    A signal that was ignored, as `nohup` ignores SIGHUP, stays ignored. Hosts agree on the step through JAX's
    preemption notice, which SIGTERM gives and which reaches each of them at a different time.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._single = jax.process_count() == 1
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Termination":
        for number in SIGNALS if self._single else SIGNALS[1:]:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._give_back()
        if not self._single:
            os.kill(os.getpid(), signal.SIGTERM)
        if number == signal.SIGINT:
            print(
                "stopping after this step, and saving; press Ctrl-C again to end at once", file=sys.stderr, flush=True
            )

    def requested(self, step: int) -> bool:
        """Return whether to stop after `step`; all hosts get the same answer."""
        return self.signal is not None if self._single else multihost_utils.reached_preemption_sync_point(step)
