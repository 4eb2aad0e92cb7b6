"""Real runs on mixtures of chain lengths, with a curriculum and a loss by step."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest

from coi_jax.runs.metrics_rows import read_metrics
from coi_jax.runs.run_folder import open_run
from coi_jax.training import loop
from coi_jax.training.loop import Batches, TrainingJob
from tests.helpers import tiny_models
from tests.helpers.token_caches import small_config, write_caches, write_dataset

SETTINGS: dict[str, Any] = {f"model.{name}": value for name, value in tiny_models.DECODER.items()} | {
    "model.layers": 1,
    "model.vocabulary_size": 260,
    "data.batch.rows": 16,
    "data.ratios": {1: 1.0, 2: 2.0},
    "data.max_examples": 60,
    "data.curriculum": {1: 0, 2: 3},
    "train.loss_on": {"kind": "weighted_steps", "weights": (0.5, 2.0)},
    "train.length.count": 6,
    "train.log_every": 1,
    "train.checkpoint_every": 4,
    "train.microbatches": 2,
}


class Interrupted:
    """Batches up to a step, where the process dies."""

    def __init__(self, batches: Batches, last: int) -> None:
        self.total_steps, self.fingerprint = batches.total_steps, batches.fingerprint
        self._batches, self._last = batches, last

    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Iterator[dict[str, jax.Array]]:
        for step, batch in enumerate(self._batches.iterate(start_step, sharding), start_step):
            if step == self._last:
                raise KeyboardInterrupt
            yield batch

    def example_ids(self, step: int) -> list[str]:
        return self._batches.example_ids(step)


def prepare(folder: Path, run: str) -> TrainingJob:
    config = small_config(folder, **SETTINGS)
    return loop.prepare(config, open_run(folder / run, config))


def metrics(job: TrainingJob) -> list[tuple[float, float, float]]:
    return [(row["step"], row["loss"], row["target_tokens"]) for row in read_metrics(job.run.metrics)]


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)
    write_dataset(tmp_path / "data", {1: 60, 2: 40})
    write_caches(small_config(tmp_path, **SETTINGS))
    whole, parts = prepare(tmp_path, "whole"), prepare(tmp_path, "parts")
    loop.fit(whole)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(replace(parts, loader=Interrupted(parts.loader, 5)))
    loop.fit(prepare(tmp_path, "parts"))
    assert metrics(parts) == metrics(whole)
    assert len(metrics(whole)) == 6
    said = capfd.readouterr().err
    assert "training on 33.3% train_length1 (36 examples, 0.556 times an epoch), 66.7% train_length2 (24 " in said
    assert "from step 3)" in said
    assert "going on from step 4" in said
