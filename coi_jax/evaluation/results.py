"""The content of `results.json`, a run on a test set: scores with intervals, baselines, counts, and provenance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from coi_jax.chains.chain import Chain
from coi_jax.evaluation import metrics
from coi_jax.evaluation.bootstrap import bootstrap
from coi_jax.evaluation.predictions import Prediction, digest
from coi_jax.evaluation.results_digest import DIGEST, results_digest


def make_results(
    task: str,
    arm: str,
    chains: Sequence[Chain],
    predictions: Sequence[Prediction],
    *,
    resamples: int,
    seed: int,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of `results.json`. Scores are x 100, with 95% bootstrap intervals over examples.

    `label_only_baseline`: what the labels earn with nothing behind them. `gold_prefix_baseline`: what the references
    earn with the final answer left out. `steps`: the counts behind each step's exact match and error propagation.
    `incomplete`: the number of answers that reached the limit of new tokens. `sha256`: the hash of all else.

    Args:
      task: the test set's name.
      arm: the run's arm.
      chains: the references.
      predictions: one for each chain, in the same order.
      resamples: behind the intervals.
      seed: of the resampling.
      provenance: what the predictions were made from.

    Raises:
      UserError: there is no such test set.
    """
    targets = [metrics.target_of(chain) for chain in chains]
    score = metrics.find_scorer(task)
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
    return results | {DIGEST: results_digest(results)}


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
