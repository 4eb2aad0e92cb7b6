"""The content of `results.json`, a run on a test set: scores with intervals, baselines, counts, and provenance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from coi_jax.chains.chain import Chain
from coi_jax.common.seals import seal
from coi_jax.data.test_sets import find_test_set
from coi_jax.evaluation import metrics
from coi_jax.evaluation.bootstrap import bootstrap, interval, resampled_means
from coi_jax.evaluation.predictions import Prediction, digest
from coi_jax.evaluation.scores import ScoreKey


def make_results(
    task: str,
    arm: str,
    chains: Sequence[Chain],
    predictions: Sequence[Prediction],
    *,
    resamples: int,
    seed: int,
    provenance: dict[str, Any],
    scores: metrics.ExampleScores | None = None,
    stages: dict[str, dict[str, int]] | None = None,
) -> dict[str, Any]:
    """Return the content of `results.json`. Scores are x 100, with 95% bootstrap intervals over examples.

    `label_only_baseline`: what the labels earn with nothing behind them. `gold_prefix_baseline`: what the references
    earn with the final answer left out. `steps`: the counts behind each step's exact match and error propagation.
    `incomplete`: the number of answers that reached the limit of new tokens. `by_task`, for test sets of several tasks:
    the scores of each, and their means over tasks. `stages`, for prompting in several calls: the numbers of outputs of
    each earlier one that could not be used, and that reached the limit. `sha256`: the hash of all else.

    Args:
      task: the test set's name.
      arm: the run's arm.
      chains: the references.
      predictions: one for each chain, in the same order.
      resamples: behind the intervals.
      seed: of the resampling.
      provenance: what the predictions were made from.
      scores: of every example, where they are computed already.
      stages: counts of the outputs of earlier calls, if there were any.

    Raises:
      UserError: there is no such test set.
    """
    targets = [metrics.target_of(chain) for chain in chains]
    score = metrics.find_scorer(task)
    if scores is None:
        scores = score(targets, [prediction.text for prediction in predictions])
    results = {
        "task": task,
        "arm": arm,
        "examples": len(chains),
        "incomplete": sum(not prediction.complete for prediction in predictions),
        "scores": with_intervals(scores, resamples, seed),
        "label_only_baseline": metrics.spell(metrics.means(score(targets, metrics.labels_only(targets)))),
        "gold_prefix_baseline": metrics.spell(metrics.means(score(targets, metrics.without_final(targets)))),
        "steps": metrics.step_counts(scores),
        "provenance": provenance | {"predictions": digest(predictions)},
    }
    if find_test_set(task).by_task:
        results["by_task"] = by_task(chains, scores, resamples, seed)
    if stages:
        results["stages"] = stages
    return seal(results)


def with_intervals(scores: metrics.ExampleScores, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the mean of each score and its 95% bootstrap interval, x 100.

    Args:
      scores: of every example.
      resamples: number of bootstrap resamples.
      seed: of the resampling.
    """
    means = metrics.means(scores)
    low, high = bootstrap(np.stack([scores[key] for key in means], axis=1), resamples, seed)
    return {
        str(key): {"value": value, "low": 100 * float(low[place]), "high": 100 * float(high[place])}
        for place, (key, value) in enumerate(means.items())
    }


def by_task(
    chains: Sequence[Chain], scores: metrics.ExampleScores, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return the scores of each task of a test set, and their means over tasks, in which all tasks count alike.

    Args:
      chains: the references; the task of a chain is that of its last step.
      scores: of every example.
      resamples: number of bootstrap resamples; those of the means are drawn within the tasks.
      seed: of the resampling.
    """
    names = np.array([chain.steps[-1].task or "" for chain in chains])
    parts = {str(name): {key: values[names == name] for key, values in scores.items()} for name in np.unique(names)}
    tasks = {
        name: {"examples": int(np.sum(names == name)), "scores": with_intervals(part, resamples, seed)}
        for name, part in parts.items()
    }
    return {"tasks": tasks, "mean": _mean_over_tasks(list(parts.values()), resamples, seed)}


def _mean_over_tasks(
    parts: Sequence[dict[ScoreKey, np.ndarray]], resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    means: dict[ScoreKey, list[float]] = {}
    resampled: dict[ScoreKey, list[np.ndarray]] = {}
    for place, part in enumerate(parts):
        of_task = metrics.means(part)
        drawn = resampled_means(np.stack([part[key] for key in of_task], axis=1), resamples, seed + place)
        for column, (key, value) in enumerate(of_task.items()):
            means.setdefault(key, []).append(value)
            resampled.setdefault(key, []).append(100 * drawn[:, column])
    result = {}
    for key, values in means.items():
        low, high = interval(_mean_of_present(np.array(resampled[key]))[:, None])
        result[str(key)] = {"value": float(np.mean(values)), "low": float(low[0]), "high": float(high[0])}
    return result


def _mean_of_present(values: np.ndarray) -> np.ndarray:
    """Return the mean of each column without NaN; NaN where a column has nothing else."""
    present = ~np.isnan(values)
    counts = present.sum(0)
    sums = np.where(present, values, 0.0).sum(0)
    return np.asarray(np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0))
