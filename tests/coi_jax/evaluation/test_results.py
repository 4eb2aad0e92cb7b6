from dataclasses import replace
from typing import Any

import pytest

from coi_jax.chains.chain import render
from coi_jax.common.seals import seal
from coi_jax.evaluation import metrics
from coi_jax.evaluation.predictions import Prediction
from coi_jax.evaluation.results import make_results
from tests.helpers.token_caches import make_chain

CHAINS = [make_chain(number, 2) for number in range(20)]
GENERATED_FROM = {"checkpoint": "3-abc"}


def score(texts: list[str], seed: int = 0) -> dict[str, Any]:
    answers = [Prediction(chain.id, text, text != "") for chain, text in zip(CHAINS, texts, strict=True)]
    return make_results("coi2_test", "coi12", CHAINS, answers, resamples=200, seed=seed, provenance=GENERATED_FROM)


def half_right() -> list[str]:
    return [chain.targets if n % 2 else "" for n, chain in enumerate(CHAINS)]


def test_intervals_hold_the_score() -> None:
    found = score(half_right())
    exact = found["scores"]["content_exact_match"]
    assert exact["value"] == 50
    assert 20 < exact["low"] < 50 < exact["high"] < 80
    assert found["incomplete"] == 10
    assert found["provenance"].keys() == {"checkpoint", "predictions"}


def test_baselines_follow_from_the_references_alone() -> None:
    found, other = score(half_right()), score([""] * 20)
    assert found["label_only_baseline"] == other["label_only_baseline"]
    assert found["gold_prefix_baseline"] == other["gold_prefix_baseline"]
    assert 0 < found["label_only_baseline"]["rouge_l"] < found["gold_prefix_baseline"]["rouge_l"] < 100


def test_the_label_only_baseline_is_the_score_of_such_predictions() -> None:
    found = score([render(["", ""])] * 20)
    assert {key: value["value"] for key, value in found["scores"].items()} == pytest.approx(
        found["label_only_baseline"]
    )


def test_same_seed_same_results() -> None:
    assert score(half_right()) == score(half_right())
    assert score(half_right())["scores"] != score(half_right(), seed=1)["scores"]


def test_a_test_set_of_several_tasks_has_the_scores_of_each_and_their_mean() -> None:
    sizes = {"large": 16, "small": 4}
    tasks = [task for task, size in sizes.items() for _ in range(size)]
    chains = [
        replace(chain, steps=(replace(chain.steps[0], task=task),)) for chain, task in zip(CHAINS, tasks, strict=True)
    ]
    texts = [chain.targets if number < 4 or number >= 18 else "" for number, chain in enumerate(chains)]
    answers = [Prediction(chain.id, text, True) for chain, text in zip(chains, texts, strict=True)]
    found = make_results("bbh", "coi12", chains, answers, resamples=300, seed=0, provenance=GENERATED_FROM)
    exact = {name: part["scores"]["content_exact_match"] for name, part in found["by_task"]["tasks"].items()}
    assert {name: (part["examples"], exact[name]["value"]) for name, part in found["by_task"]["tasks"].items()} == {
        "large": (16, 25),
        "small": (4, 50),
    }
    mean = found["by_task"]["mean"]["content_exact_match"]
    assert (found["scores"]["content_exact_match"]["value"], mean["value"]) == (30, 37.5)
    assert 0 < mean["low"] < 37.5 < mean["high"] < 75
    assert found == seal(found)
    assert "by_task" not in score(half_right())


def test_scores_that_are_computed_already_are_not_computed_again() -> None:
    texts = half_right()
    answers = [Prediction(chain.id, text, True) for chain, text in zip(CHAINS, texts, strict=True)]
    scores = metrics.score_examples([chain.outputs for chain in CHAINS], texts)
    settings: dict[str, Any] = {"resamples": 50, "seed": 0, "provenance": GENERATED_FROM}
    made = make_results("coi2_test", "coi12", CHAINS, answers, **settings)
    assert make_results("coi2_test", "coi12", CHAINS, answers, **settings, scores=scores) == made
