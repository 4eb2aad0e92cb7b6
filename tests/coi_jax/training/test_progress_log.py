import math
from pathlib import Path

import jax.numpy as jnp
import pytest

from coi_jax.common.errors import UserError
from coi_jax.common.progress import Bar
from coi_jax.models.flops import Costs, Work
from coi_jax.runs.metrics_rows import read_metrics
from coi_jax.runs.run_folder import RunFolder
from coi_jax.training.progress_log import ProgressLog, ThroughputWindow
from coi_jax.training.step import StepMetrics

COSTS = Costs(token=1, target=0, encoder_token=1, pair=0, encoder_pair=0)


def work(tokens: int) -> Work:
    return Work(*(jnp.float32(n) for n in (2, tokens, 0, 0, 0, 0, 0)))


def metrics(loss: float, gradient_norm: float = 0.5, *, is_finite: bool = True) -> StepMetrics:
    half = jnp.float32(0.5)
    finite = jnp.asarray(is_finite)
    return StepMetrics(jnp.float32(loss), half, jnp.float32(gradient_norm), half, half, half, finite, work(10))


def report(folder: Path, done: int = 0) -> ProgressLog:
    return ProgressLog(RunFolder(folder), total_steps=5, start_step=done, log_every=2, costs=COSTS, peak_flops=1e12)


def test_every_second_step_and_the_last_are_logged(tmp_path: Path) -> None:
    with report(tmp_path) as running:
        for step in range(1, 6):
            running.add(step, metrics(step))
            assert running.loss == step - 1 or math.isnan(running.loss)  # one step late
        running.flush()
        assert running.loss == 5
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(2, 2.0), (4, 4.0), (5, 5.0)]
    assert {
        "accuracy",
        "gradient_norm",
        "parameter_norm",
        "learning_rate",
        "seconds_per_step",
        "tokens_per_second",
        "examples_per_second",
        "mfu",
    } < set(rows[-1])


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((math.nan, math.nan), r"loss of step 1: nan: .*learning_rate"),
        ((1.0, math.inf), r"gradient norm of step 1: inf: .*learning_rate"),
        ((1.0, 1.0), r"parameters of step 1: not finite: .*learning_rate"),
    ],
)
def test_numbers_that_are_not_finite_stop_the_run(tmp_path: Path, numbers: tuple[float, float], says: str) -> None:
    with report(tmp_path) as running:
        running.add(1, metrics(*numbers, is_finite=False))
        with pytest.raises(UserError, match=says):
            running.add(2, metrics(1.0))


def test_speeds_leave_out_the_first_step_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 101.0, 103.0])  # the first step ends, with its compilation, at 100
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    window = ThroughputWindow()
    window.add(work(1000), 9e9)
    assert window.throughput(1e9) == {}
    window.add(work(30), 6e9)
    window.add(work(60), 3e9)
    throughput = window.throughput(1e10)
    assert throughput == pytest.approx(
        {"seconds_per_step": 1.5, "tokens_per_second": 30.0, "examples_per_second": 4 / 3, "mfu": 0.3}
    )
    window.restart()
    assert window.throughput(1e9) == {}


def test_the_first_step_of_a_launch_is_not_in_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typical: list[bool] = []
    monkeypatch.setattr(Bar, "advance", lambda self, count, note, is_typical: typical.append(is_typical))
    with report(tmp_path, done=2) as running:
        for step in (3, 4, 5):
            running.add(step, metrics(1.0))
        running.flush()
    assert typical == [False, True, True]
