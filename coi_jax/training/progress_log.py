"""What a running training says: a progress bar, and rows of numbers every few steps."""

import math
import time
from typing import Any

import jax

from coi_jax.common.errors import UserError
from coi_jax.common.progress import Bar
from coi_jax.models.flops import Costs, Work, model_flops
from coi_jax.runs.metrics_log import MetricsLog
from coi_jax.runs.run_folder import RunFolder
from coi_jax.training.step import StepMetrics


class Report:
    """Takes the metrics of every step, and reads them from the device one step late, so that the device never waits.

    A logged row holds the step's own numbers, and speeds over all steps since the row before: of useful tokens only,
    prompts and targets without padding. Time spent on saving counts; the first step's compilation does not.
    """

    def __init__(self, run: RunFolder, *, total: int, done: int, every: int, costs: Costs, peak: float) -> None:
        self.loss = math.nan
        self._every, self._total = every, total
        self._costs, self._peak = costs, peak
        self._pending: tuple[int, StepMetrics] | None = None
        self._window = Window()
        self._bar = Bar("training", total=total, done=done)
        self._log = MetricsLog(run.metrics, run.tensorboard, start=done) if jax.process_index() == 0 else None

    def __enter__(self) -> "Report":
        self._bar.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._bar.__exit__(*details)
        if self._log:
            self._log.close()

    def add(self, step: int, metrics: StepMetrics) -> None:
        """Takes the metrics of a step that may still be running; reports the one before.

        Raises:
          UserError: the loss of the step before is not a number.
          OSError: the log cannot be written.
        """
        self.flush()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Waits for the last step that was added, and reports it; raises as `add`."""
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        self._take(step, jax.device_get(metrics))

    def _take(self, step: int, metrics: StepMetrics) -> None:
        self.loss = float(metrics.loss)
        if not math.isfinite(self.loss):
            hint = "training diverged; lower config.optimizer.learning_rate or clip gradients, in another --workdir"
            raise UserError(f"loss of step {step}", self.loss, hint)
        self._bar.advance(1, note=f"loss {self.loss:.3f}")
        self._window.add(metrics.work, model_flops(metrics.work, self._costs))
        if step % self._every == 0 or step == self._total:
            if self._log:
                self._log.write(step, _numbers(metrics) | self._window.speeds(self._peak))
            self._window.restart()


class Window:
    """Sums since the last logged row. It begins when a first step has ended, so that no compilation is timed."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._ended = 0.0
        self._clear()

    def _clear(self) -> None:
        self._steps, self._tokens, self._examples, self._flops = 0, 0.0, 0.0, 0.0

    def add(self, work: Work, operations: float) -> None:
        """Counts a step that has just ended."""
        self._ended = time.perf_counter()
        if self._began is None:
            self._began = self._ended
            return
        self._steps += 1
        self._tokens += float(work.tokens + work.encoder_tokens)
        self._examples += float(work.examples)
        self._flops += operations

    def speeds(self, peak: float) -> dict[str, float]:
        """Speeds of the window; none where it holds no whole step."""
        if not self._steps or self._began is None:
            return {}
        seconds = self._ended - self._began
        return {
            "seconds_per_step": seconds / self._steps,
            "tokens_per_second": self._tokens / seconds,
            "examples_per_second": self._examples / seconds,
            "mfu": self._flops / seconds / peak,
        }

    def restart(self) -> None:
        """Begins the next window where this one ended."""
        self._began = self._ended
        self._clear()


def _numbers(metrics: StepMetrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics._asdict().items() if name != "work"}
