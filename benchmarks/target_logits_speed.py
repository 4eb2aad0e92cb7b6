"""Measures a train step with logits at all positions and at the targets alone, and how far losses and gradients differ.

  python -m benchmarks.target_logits_speed
  python -m benchmarks.target_logits_speed --sizes smollm2_135m --steps 4 --rows 8 --length 256

Random weights, rows of three examples whose last third are targets, AdamW, float32. The two steps are taken in turns.
Prints JSON; exits with status 1 where a loss differs by more than --tolerance.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from benchmarks.training_speed import DECODER
from coi_jax.common import cli
from coi_jax.config.run import RunConfig, load_config
from coi_jax.models import Network, build
from coi_jax.parallel.processes import start_jax
from coi_jax.runs.train_state import TrainState
from coi_jax.training import optimizer
from coi_jax.training import step as train_step

CONFIG = "configs/fine_tune.py"
FIXED = {
    "vocabulary": "bytes",  # which nothing is encoded with
    "data.template": "plain",
    "model.dtype": "float32",
    "model.loss_chunk": None,
    "model.remat": "none",
}
# A network of 30M parameters with a small vocabulary, and presets with a large one.
SIZES: dict[str, dict[str, Any]] = {
    "30m": DECODER | {"model.preset": "llama", "model.vocabulary_size": 4000},
    "smollm2_135m": {"model.preset": "smollm2_135m"},
    "gemma3_270m": {"model.preset": "gemma3_270m"},
}
EXAMPLES = 3  # of a row


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="networks to measure")
    parser.add_argument("--steps", type=cli.positive_int, default=5, help="timed steps of each kind")
    parser.add_argument("--rows", type=cli.positive_int, default=8)
    parser.add_argument("--length", type=cli.positive_int, default=256, help="positions of a row")
    parser.add_argument("--tolerance", type=cli.number, default=1e-4, help="how far losses may differ")
    arguments = parser.parse_args(sys.argv[1:] if argv is None else argv)
    start_jax()
    found = {size: measure(size, arguments.rows, arguments.length, arguments.steps) for size in arguments.sizes}
    print(json.dumps({"benchmark": "target_logits"} | machine.describe() | found, indent=2))
    return 0 if all(one["loss_difference"] <= arguments.tolerance for one in found.values()) else 1


def measure(size: str, rows: int, length: int, steps: int) -> dict[str, Any]:
    """Return the medians of both kinds of step, and how far their losses differ.

    Args:
      size: of SIZES.
      rows: of a batch.
      length: positions of a row.
      steps: timed steps of each kind.
    """
    config = load_config(CONFIG, FIXED | SIZES[size])
    network = build(config.model, config.model.vocabulary_size or 0)
    batch = make_batch(rows, length, network.vocabulary_size)
    targets = int(batch["weights"].sum())
    kinds = {"all": _Stepper(config, network, None), "targets": _Stepper(config, network, targets)}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    losses: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(steps + 1):
        for kind, stepper in kinds.items():
            took, loss = stepper.step(batch)
            losses[kind].append(loss)
            if turn:  # the first compiles
                seconds[kind].append(took)
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    pairs = zip(losses["all"], losses["targets"], strict=True)
    return {
        "parameters": network.parameter_counts()["total"],
        "positions": rows * length,
        "targets": targets,
        "seconds_all": round(medians["all"], 3),
        "seconds_targets": round(medians["targets"], 3),
        "times_as_fast": round(medians["all"] / medians["targets"], 3),
        "loss_difference": max(abs(one - other) for one, other in pairs),
    }


def make_batch(rows: int, length: int, vocabulary_size: int) -> dict[str, np.ndarray]:
    """Return packed rows of three examples, the last third of each targets.

    Args:
      rows: of the batch.
      length: positions of a row.
      vocabulary_size: ids are drawn below it.
    """
    random = np.random.default_rng(0)
    each = length // EXAMPLES
    used = np.arange(length) < each * EXAMPLES
    positions = np.where(used, np.arange(length) % each, 0)
    segments = np.where(used, np.arange(length) // each + 1, 0)
    weights = used & (positions >= 2 * each // 3)
    ids = random.integers(1, vocabulary_size, (rows, length + 1))
    one = {"weights": weights, "segments": segments, "positions": positions}
    batch = {name: np.repeat(values[None], rows, 0) for name, values in one.items()}
    batch |= {"tokens": ids[:, :-1], "targets": ids[:, 1:]}
    return {name: values.astype(np.int32) for name, values in batch.items()}


class _Stepper:
    """A network that is trained, from the same weights for each kind of step."""

    def __init__(self, config: RunConfig, network: Network, target_capacity: int | None) -> None:
        schedule = optimizer.make_schedule(config.optimizer, 100)
        transformation = optimizer.make_optimizer(config.optimizer, schedule, network.logical_axes())
        step = train_step.make_step(
            network, transformation, schedule, microbatches=1, seed=0, target_capacity=target_capacity
        )
        self._step = jax.jit(step, donate_argnums=0)
        params = network.init(jax.random.key(0))
        self._state = TrainState(params, transformation.init(params), np.zeros((), np.int32), None)

    def step(self, batch: dict[str, np.ndarray]) -> tuple[float, float]:
        """Take a step; return its seconds and its loss."""
        began = time.perf_counter()
        self._state, metrics = self._step(self._state, batch)
        loss = float(metrics.loss)
        jax.block_until_ready(self._state)
        return time.perf_counter() - began, loss


if __name__ == "__main__":
    sys.exit(cli.run(main))
