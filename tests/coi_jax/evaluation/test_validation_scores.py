"""Answers to the validation split of a real, small training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data.task_specs import validation_tasks
from coi_jax.data.token_cache import Example
from coi_jax.evaluation.validation_scores import choose, make_scorer
from coi_jax.runs import checkpoint, checkpoint_steps
from coi_jax.runs.metrics_rows import read_metrics
from coi_jax.runs.run_folder import open_run
from coi_jax.training import loop
from coi_jax.training.loop import TrainingJob
from tests.helpers import tiny_models
from tests.helpers.token_caches import make_chain, small_config, write_caches

BEST_BY = "content_rouge_l"
VALIDATION = {"every": 1, "generate_every": 2, "generate_examples": 6, "best_by": BEST_BY}


def make_config(folder: Path, **validation: Any) -> RunConfig:
    settings = {f"model.{name}": value for name, value in tiny_models.DECODER.items()} | {
        "arm": "coi2",
        "model.layers": 1,
        "model.vocabulary_size": 260,
        "data.batch.rows": 8,
        "train.length.count": 4,
        "train.log_every": 1,
        "optimizer.learning_rate": 1e-2,
        "evaluation.tests": ("proc2_test",),
        "evaluation.max_new_tokens": 4,
        "evaluation.batch": 8,
        "train.validation": VALIDATION | validation,
    }
    return small_config(folder, **settings)


def prepare(folder: Path, run: str, **validation: Any) -> TrainingJob:
    config = make_config(folder, **validation)
    return loop.prepare(config, open_run(folder / run, config))


@pytest.fixture(autouse=True)
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with 10 validation rows, and its caches."""
    folder = tmp_path_factory.mktemp("scores")
    with DatasetWriter(folder / "data", "procedural") as writer:
        for number in range(40):
            writer.add("train", make_chain(number, 2))
        for number in range(100, 110):
            writer.add("validation", make_chain(9 * number, 2))  # short inputs, so that prompts have one padded length
        writer.finish("none", {})
    config = make_config(folder)
    write_caches(config)
    write_caches(config, validation_tasks(config, "validation"))
    return folder


def test_answers_are_scored_and_choose_the_best_checkpoint(data: Path) -> None:
    job = prepare(data, "scored")
    job = replace(job, scorer=make_scorer(job))
    loop.fit(job)
    rows = read_metrics(job.run.metrics)
    scores = {row["step"]: row[f"validation_{BEST_BY}"] for row in rows if f"validation_{BEST_BY}" in row}
    assert list(scores) == [2, 4]
    assert [row["step"] for row in rows if "validation_loss" in row] == [1, 2, 3, 4]
    (best,) = checkpoint_steps.steps(job.run.best)
    assert scores[best] == max(scores.values())
    assert checkpoint.read_position(job.run.best, best)[f"validation_{BEST_BY}"] == scores[best]
    params = checkpoint.restore_params(job.run.best, job.network, step=best, mesh=job.mesh)
    with jax.set_mesh(job.mesh):
        assert job.scorer is not None
        again = job.scorer.scores(params)
    assert again[BEST_BY] == pytest.approx(scores[best])


def test_a_score_that_there_is_not_is_one_line(data: Path) -> None:
    with pytest.raises(UserError, match=r"config\.train\.validation\.best_by: content_rogue_l: unknown; did you mean"):
        make_scorer(prepare(data, "unknown", best_by="content_rogue_l"))
    with pytest.raises(UserError, match=r"best_by='content_rouge_l' is a score of generated answers; set generate_ev"):
        make_config(data, generate_every=None)


def test_without_answers_there_is_no_scorer(data: Path) -> None:
    assert make_scorer(prepare(data, "without", generate_every=None, best_by="loss")) is None


def test_the_same_chains_are_answered_whatever_their_order() -> None:
    empty = np.zeros(0, np.int32)
    examples = [Example(empty, empty, make_chain(number, 2)) for number in range(9)]
    ids = [[example.chain.id for example in choose(order, 4)] for order in (examples, examples[::-1])]
    assert ids[0] == ids[1]
    assert len(choose(examples, 20)) == 9
