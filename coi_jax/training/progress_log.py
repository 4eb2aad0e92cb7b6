"""Progress of a training run: a progress bar, and rows of metrics every few steps."""

import math
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from coi_jax.common.errors import UserError
from coi_jax.common.progress import Bar
from coi_jax.common.wording import count_of
from coi_jax.models.flops import Costs, Work, model_flops
from coi_jax.parallel import processes
from coi_jax.runs.metrics_log import MetricsLog
from coi_jax.runs.run_folder import RunFolder
from coi_jax.runs.trackers import Tracker
from coi_jax.training.step import StepMetrics

VALIDATION = "validation_"  # what names of the validation split's numbers begin with, in metrics.jsonl
VALIDATION_LOSS = f"{VALIDATION}loss"
NAMED = 4  # examples of a step that diverged
MOST_SKIPPED = 10  # steps in a row: more are no fault of single examples
PARAMETERS = ("parameters", "not finite")  # where loss and gradient are: the update is not
DIVERGED = (
    "training diverged; lower config.optimizer.learning_rate or clip gradients, in another --workdir, or go on from "
    "the last checkpoint without such steps: --config.train.on_not_finite=skip"
)


class LeftOut(NamedTuple):
    """How many steps were left out since they were not finite: of all, and in a row up to the newest."""

    total: int = 0
    in_a_row: int = 0


NOTHING_LEFT_OUT = LeftOut()


class ProgressLog:
    """Takes the metrics of every step, and reads them from the device one step late, so that the device never waits.

    A logged row holds the step's own metrics, and the throughput over all steps since the row before: of useful tokens
    only, prompts and targets without padding. Time spent on saving counts; the compilation of the first step does not,
    nor in the ETA of the bar.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        total_steps: int,
        start_step: int,
        log_every: int,
        costs: Costs,
        peak_flops: float,
        trackers: Sequence[Tracker] = (),
        ids_of: Callable[[int], Sequence[str]] = lambda _: (),
        skips: bool = False,
        left_out: LeftOut = NOTHING_LEFT_OUT,
    ) -> None:
        """Begin the log of a run that continues after `start_step` steps.

        Args:
          run: the run folder.
          total_steps: of the whole run.
          start_step: steps that the run has taken.
          log_every: steps between rows.
          costs: of the network, for the MFU.
          peak_flops: of a device.
          trackers: get every row too.
          ids_of: returns the ids of the examples of a step.
          skips: whether a step that is not finite was left out, and is said; else it is an error.
          left_out: of the steps that the run has taken.
        """
        self.loss, self._skips, self.left_out, self._folder = math.nan, skips, left_out, run.path
        self._log_every, self._total_steps, self._first_step = log_every, total_steps, start_step + 1
        self._costs, self._peak_flops, self._ids_of = costs, peak_flops, ids_of
        self._pending: tuple[int, StepMetrics] | None = None
        self._window = ThroughputWindow()
        self._bar = Bar("training", total=total_steps, done=start_step)
        self._log = None
        if jax.process_index() == 0:
            self._log = MetricsLog(run.metrics, run.tensorboard, start=start_step, trackers=trackers)

    @property
    def rows(self) -> int:
        """Return the number of rows in metrics.jsonl; 0 on all but the primary process, which alone writes it."""
        return self._log.rows if self._log else 0

    def __enter__(self) -> "ProgressLog":
        self._bar.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._bar.__exit__(*details)
        if self._log:
            self._log.close(failed=details[0] is not None)

    def add(self, step: int, metrics: StepMetrics) -> None:
        """Take the metrics of a step that may still be running; log those of the step before.

        Raises:
          UserError: the loss, gradient or parameters of the step before are not finite, unless it was left out.
          OSError: the log cannot be written.
        """
        self._take_pending()
        self._pending = (step, metrics)

    def add_validation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of the validation split after a step; their time counts for no throughput."""
        if self._log:
            self._log.write(step, numbers)
        self._window.skip()

    def flush(self) -> None:
        """Wait for the last step that was added, and have all rows on disk, as before a checkpoint; raises as `add`."""
        self._take_pending()
        if self._log:
            self._log.flush()

    def _take_pending(self) -> None:
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        self._take(step, jax.device_get(metrics))

    def _take(self, step: int, metrics: StepMetrics) -> None:
        if metrics.is_finite:
            self.loss, self.left_out = float(metrics.loss), self.left_out._replace(in_a_row=0)
        else:
            self._skip(step, metrics)
        self._bar.advance(1, note=f"loss {self.loss:.3f}", is_typical=step > self._first_step)
        self._window.add(metrics.work, model_flops(metrics.work, self._costs))
        if step % self._log_every == 0 or step == self._total_steps:
            if self._log:
                self._log.write(step, _numbers(metrics) | self._window.throughput(self._peak_flops))
            self._window.restart()

    def _skip(self, step: int, metrics: StepMetrics) -> None:
        """Say that a step was left out; raise UserError where it was not, or where too many were in a row."""
        name, value = _not_finite(metrics)
        examples = _examples(step, self._ids_of(step), self._folder)
        if not self._skips:
            raise UserError(f"{name} of step {step}", value, f"{DIVERGED}{examples}")
        self.left_out = LeftOut(self.left_out.total + 1, self.left_out.in_a_row + 1)
        if reason := self._too_many(step):
            hint = f"{reason}; lower config.optimizer.learning_rate, or clip gradients, in another --workdir"
            raise UserError(f"{name} of step {step}", value, hint)
        processes.log_primary(f"left out: {name} of step {step}: {value}{examples}")

    def _too_many(self, step: int) -> str:
        """Return why so many steps left out are no fault of single examples; empty where they may be."""
        in_a_row = self.left_out.in_a_row
        if in_a_row > MOST_SKIPPED:
            return f"more than {MOST_SKIPPED} steps in a row are not finite"
        if step == self._total_steps and 2 * in_a_row >= self._total_steps:
            return f"the last {in_a_row} of {count_of(self._total_steps, 'step')} are not finite"
        return ""


class ThroughputWindow:
    """Sums since the last logged row. It begins after the first step, so that no compilation is timed."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._ended = 0.0
        self._clear()

    def _clear(self) -> None:
        self._steps, self._tokens, self._examples, self._flops = 0, 0.0, 0.0, 0.0

    def add(self, work: Work, operations: float) -> None:
        """Count a step that has just ended."""
        self._ended = time.perf_counter()
        if self._began is None:
            self._began = self._ended
            return
        self._steps += 1
        self._tokens += float(work.tokens + work.encoder_tokens)
        self._examples += float(work.examples)
        self._flops += operations

    def throughput(self, peak_flops: float) -> dict[str, float]:
        """Return steps, tokens and examples per second and the MFU; empty where no whole step was timed."""
        if not self._steps or self._began is None:
            return {}
        seconds = self._ended - self._began
        return {
            "seconds_per_step": seconds / self._steps,
            "tokens_per_second": self._tokens / seconds,
            "examples_per_second": self._examples / seconds,
            "mfu": self._flops / seconds / peak_flops,
        }

    def skip(self) -> None:
        """Leave out the time since the last step."""
        now = time.perf_counter()
        if self._began is not None:
            self._began += now - self._ended
        self._ended = now

    def restart(self) -> None:
        """Begin the next window where this one ended."""
        self._began = self._ended
        self._clear()


def _numbers(metrics: StepMetrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics._asdict().items() if name not in ("is_finite", "work")}


def _not_finite(metrics: StepMetrics) -> tuple[str, float | str]:
    """Return the first of a step's numbers that is not finite: its name and its value."""
    numbers = {"loss": float(metrics.loss), "gradient norm": float(metrics.gradient_norm)}
    return next(((name, value) for name, value in numbers.items() if not math.isfinite(value)), PARAMETERS)


def _examples(step: int, ids: Sequence[str], folder: os.PathLike[str]) -> str:
    """Return which examples a step of a run has seen, and how to read them."""
    if not ids:
        return ""
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    command = f"python -m coi_jax.batch --workdir {shlex.quote(os.fspath(folder))} --step {step}"
    return f" (examples {', '.join(ids[:NAMED])}{more}: {command})"
