from typing import Any

import pytest

from coi_jax.chains.chain import render
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
