"""Run folders with scored answers, without a model."""

from collections.abc import Sequence
from pathlib import Path

from coi_jax.chains.chain import Chain
from coi_jax.common import files
from coi_jax.evaluation import metrics, predictions
from coi_jax.evaluation.predictions import PREDICTIONS, Prediction
from coi_jax.evaluation.results import make_results
from tests.helpers.token_caches import make_chain

CHAINS = tuple(make_chain(number, 2) for number in range(30))


def write_run(folder: Path, right: int, chains: Sequence[Chain] = CHAINS, task: str = "coi2_test") -> str:
    """A run that answered so many of the chains rightly, the first ones, and the others with nothing."""
    place = folder / "eval" / task
    predictions.prepare(place, {})
    with open(place / PREDICTIONS, "a", encoding="utf-8") as file:
        for number, chain in enumerate(chains):
            answer = Prediction(chain.id, chain.targets if number < right else "", True)
            scores = metrics.of_example(metrics.score_examples([chain.outputs], [answer.text]), 0)
            predictions.append(file, answer, chain, scores)
    answers = list(predictions.read(place))
    scored = make_results(task, "coi12", chains, answers, resamples=10, seed=0, provenance={})
    files.write_json(place / "results.json", scored)
    return str(folder)
