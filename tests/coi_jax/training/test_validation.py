"""The validation loss of real runs on small datasets, whose caches are there."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data.task_specs import validation_tasks
from coi_jax.inference.model import load_model
from coi_jax.runs import checkpoint_steps
from coi_jax.runs.metrics_rows import read_metrics
from coi_jax.runs.run_folder import open_run
from coi_jax.training import loop, step
from coi_jax.training.loop import Fitted, TrainingJob
from tests.helpers import tiny_models
from tests.helpers.token_caches import make_chain, small_config, write_caches

EVERY = {"train.validation": {"every": 2, "split": "validation", "examples": None, "keep_best": True}}
SETTINGS: dict[str, Any] = {f"model.{name}": value for name, value in tiny_models.DECODER.items()} | {
    "model.layers": 1,
    "model.vocabulary_size": 260,
    "data.batch.rows": 8,
    "train.length.count": 6,
    "train.log_every": 1,
    "train.checkpoint_every": 4,
    "optimizer.learning_rate": 1e-2,
    "evaluation.tests": ("proc2_test",),
}


@pytest.fixture(autouse=True)
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with 30 validation rows, and its caches."""
    folder = tmp_path_factory.mktemp("validation")
    with DatasetWriter(folder / "data", "procedural") as writer:
        for length in (1, 2):
            for number in range(40):
                writer.add("train", make_chain(number, length))
            for number in range(100, 115):
                writer.add("validation", make_chain(number, length))
        writer.finish("none", {})
    config = make_config(folder)
    write_caches(config)
    write_caches(config, validation_tasks(config, "validation"))
    return folder


def make_config(folder: Path, **overrides: Any) -> RunConfig:
    return small_config(folder, **{**SETTINGS, **EVERY, **overrides})


def prepare(folder: Path, run: str, **overrides: Any) -> TrainingJob:
    config = make_config(folder, **overrides)
    return loop.prepare(config, open_run(folder / run, config))


def fit(job: TrainingJob) -> Fitted:
    return loop.fit(job)


def rows(job: TrainingJob, name: str) -> dict[int, float]:
    return {row["step"]: row[name] for row in read_metrics(job.run.metrics) if name in row}


@pytest.fixture(scope="module")
def trained(data: Path) -> TrainingJob:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)
        job = prepare(data, "trained")
        fit(job)
    return job


def loss_of(job: TrainingJob) -> float:
    """The loss of the initial parameters."""
    assert job.validation is not None
    with jax.set_mesh(job.mesh):
        params, frozen = job.initial_weights.load(job.mesh)
        state = step.initial_state(params, frozen, job.optimizer, job.shardings)
        return job.validation.loss(state)


def test_the_loss_does_not_depend_on_rows_or_microbatches(data: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"data.batch.rows": 16, "train.microbatches": 2}, {"data.length": 512}]
    found = [loss_of(prepare(data, f"packed{place}", **change)) for place, change in enumerate(changes)]
    np.testing.assert_allclose(found, found[0], rtol=1e-5)
    fewer = {**EVERY["train.validation"], "examples": 10}
    assert abs(loss_of(prepare(data, "fewer", **{"train.validation": fewer})) - found[0]) > 1e-4


def test_it_is_logged_every_so_many_steps_and_the_lowest_is_kept(trained: TrainingJob) -> None:
    losses = rows(trained, "validation_loss")
    assert list(losses) == [2, 4, 6]
    (best,) = checkpoint_steps.steps(trained.run.best)
    assert losses[best] == min(losses.values())
    model = load_model(trained.run.path, {"evaluation.checkpoint": "best"})
    assert model.step == best
    assert model.checkpoint.startswith(f"{best}-")
    assert load_model(trained.run.path, {}).step == 6
    assert list(rows(trained, "loss")) == [1, 2, 3, 4, 5, 6]


def test_training_is_the_same_without_it(data: Path, trained: TrainingJob) -> None:
    job = prepare(data, "without", **{"train.validation": None})
    fit(job)
    assert rows(job, "loss") == rows(trained, "loss")
    assert not job.run.best.exists()
    with pytest.raises(UserError, match="has none: it reached no validation"):
        load_model(job.run.path, {"evaluation.checkpoint": "best"})


def test_a_higher_loss_replaces_nothing_also_after_a_restart(data: Path) -> None:
    job = prepare(data, "restarted", **{"optimizer.learning_rate": 1e-2, "train.length.count": 4})
    fit(job)
    (kept,) = checkpoint_steps.steps(job.run.best)
    lowest = rows(job, "validation_loss")[kept]
    again = prepare(data, "restarted", **{"optimizer.learning_rate": 1e-2, "train.length.count": 8})
    fit(again)
    losses = rows(again, "validation_loss")
    assert list(losses) == [2, 4, 6, 8]
    (best,) = checkpoint_steps.steps(again.run.best)
    assert losses[best] == min(losses.values()) <= lowest


def test_more_examples_than_there_are_are_one_line(data: Path) -> None:
    more = {**EVERY["train.validation"], "examples": 31}
    with pytest.raises(
        UserError, match=r"^config\.train\.validation\.examples: 31: only 30 examples fit a row; give at"
    ):
        prepare(data, "more", **{"train.validation": more})


def test_a_split_that_is_not_there_is_one_line(data: Path) -> None:
    with pytest.raises(UserError, match=r"config\.train\.validation\.split: validatoin: .*splits train, validation"):
        validation_tasks(make_config(data), "validatoin")
    with pytest.raises(UserError, match=r"write both: coi_jax\.write_chains\(folder, \{'train': …, 'dev': …\}\)"):
        validation_tasks(make_config(data), "dev")
