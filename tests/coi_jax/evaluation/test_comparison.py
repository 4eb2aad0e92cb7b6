import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.seals import seal_row
from coi_jax.evaluation import predictions
from coi_jax.evaluation.comparison import compare, paired_bootstrap
from coi_jax.evaluation.predictions import PREDICTIONS
from tests.helpers.answered_runs import CHAINS, write_run
from tests.helpers.token_caches import make_chain


def one(a: str | list[str], b: str | list[str], score: str = "content_exact_match", **options: Any) -> dict[str, Any]:
    left, right = ([side] if isinstance(side, str) else side for side in (a, b))
    (found,) = compare(left, right, scores=[score], **{"resamples": 500, "seed": 0} | options)
    return found.to_dict()


def test_the_difference_stands_with_its_interval_and_the_examples_behind_it(tmp_path: Path) -> None:
    found = one(write_run(tmp_path / "a", 24), write_run(tmp_path / "b", 9))
    assert (found["a"], found["b"], found["difference"]) == (80, 30, 50)
    assert 25 < found["low"] < 50 < found["high"] < 75
    assert (found["better"], found["worse"], found["equal"]) == (0.5, 0, 0.5)
    assert found["share_not_above_zero"] == 0
    assert (found["examples"], found["left_out"]) == (30, 0)


def test_the_other_way_round_is_the_negative(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 24), write_run(tmp_path / "b", 9)
    there, back = one(a, b), one(b, a)
    assert (back["difference"], back["low"], back["high"]) == (-there["difference"], -there["high"], -there["low"])
    assert (back["better"], back["worse"]) == (there["worse"], there["better"])
    assert back["share_not_above_zero"] == 1


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 10)
    found = one(run, run)
    assert (found["difference"], found["low"], found["high"], found["equal"]) == (0, 0, 0, 1)


def test_intervals_of_equal_runs_hold_zero_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        difficulty = random.normal(size=60)
        a, b = (difficulty[None] + random.normal(size=(1, 60)) for _ in range(2))
        found = paired_bootstrap(a, b, 300, seed)
        held += found.low <= 0 <= found.high
    assert 0.90 <= held / 200 <= 0.98


def test_pairs_tell_apart_what_two_intervals_cannot() -> None:
    random = np.random.default_rng(0)
    difficulty = 30 * random.normal(size=(1, 100))
    found = paired_bootstrap(difficulty + 1 + 0.1 * random.normal(size=(1, 100)), difficulty, 500, 0)
    assert 0.9 < found.low < 1 < found.high < 1.1
    assert found.share_not_above_zero == 0


def test_runs_of_several_seeds_are_replicates(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(right), right) for right in (6, 18, 30)]
    other = write_run(tmp_path / "other", 15)
    together, alone = one(runs, other), one(runs[1], other)
    assert together["a"] == alone["a"] == 60
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])


def test_same_seed_same_interval(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 20), write_run(tmp_path / "b", 12)
    assert one(a, b) == one(a, b)
    assert one(a, b)["low"] != one(a, b, seed=1)["low"] or one(a, b)["high"] != one(a, b, seed=1)["high"]


def test_examples_that_one_run_lacks_are_left_out_and_counted(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 30), write_run(tmp_path / "b", 0, CHAINS[10:])
    found = one(a, b)
    assert (found["examples"], found["left_out"]) == (20, 10)


def test_scores_of_steps_and_all_common_test_sets_are_compared(tmp_path: Path) -> None:
    for task in ("coi2_test", "coi3_test"):
        a, b = write_run(tmp_path / "a", 20, task=task), write_run(tmp_path / "b", 12, task=task)
    write_run(tmp_path / "a", 3, task="bbh")
    found = compare([a], [b], scores=["step2_exact_match", "rouge_l"], resamples=50, seed=0)
    assert [(each.task, each.score) for each in found] == [
        (task, score) for task in ("coi2_test", "coi3_test") for score in ("step2_exact_match", "rouge_l")
    ]


def test_what_cannot_be_compared_is_one_line(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 20), write_run(tmp_path / "b", 12)
    write_run(tmp_path / "a", 2, task="bbh")
    with pytest.raises(UserError, match=r"no predictions of it; run .* --workdir .*b --tasks bbh"):
        one(a, b, tasks=["bbh"])
    with pytest.raises(UserError, match="content_exact_mach: coi2_test: unknown; did you mean 'content_exact_match'"):
        one(a, b, "content_exact_mach")
    with pytest.raises(UserError, match="have no test set in common"):
        one(write_run(tmp_path / "c", 1, task="coi5_test"), b)
    with pytest.raises(UserError, match="have no example in common"):
        one(write_run(tmp_path / "d", 1, [make_chain(99, 2)]), b)
    with pytest.raises(UserError, match="nowhere: has no predictions"):
        one(str(tmp_path / "nowhere"), b)


def test_answers_to_another_version_of_an_example_are_not_compared(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 20), write_run(tmp_path / "b", 12)
    path = tmp_path / "b" / "eval" / "coi2_test" / PREDICTIONS
    rows = list(predictions.read_rows(path.parent))
    rows[4]["target"] += " and more"
    path.write_text("".join(json.dumps(seal_row(row)) + "\n" for row in rows))
    with pytest.raises(UserError, match=rf"different versions of it \(example {rows[4]['id']}\)"):
        one(a, b)


def test_predictions_of_earlier_versions_are_named(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 20), write_run(tmp_path / "b", 12)
    path = tmp_path / "b" / "eval" / "coi2_test" / PREDICTIONS
    kept = ("id", "prediction", "complete", "target")
    rows = [{key: row[key] for key in kept} for row in files.read_jsonl(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"of an earlier version, without scores; run python -m coi_jax\.evaluate"):
        one(a, b)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {"rouge_l": {}}},
        {"scores": {"rouge_l": {"value": "nan?"}}},
        {"scores": 3},
        {"provenance": "x"},
    ],
)
def test_results_of_another_form_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    a, b = write_run(tmp_path / "a", 5), write_run(tmp_path / "b", 9)
    path = Path(a) / "eval" / "coi2_test" / "results.json"
    path.write_text(json.dumps(files.read_object(path) | change))
    with pytest.raises(UserError, match=r"results.*not as python -m coi_jax\.evaluate writes it"):
        one(a, b)


def test_steps_without_scores_have_none(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 5), write_run(tmp_path / "b", 9)
    path = Path(a) / "eval" / "coi2_test" / PREDICTIONS
    rows = list(predictions.read_rows(path.parent))
    del rows[0]["steps"][0]["scores"]
    path.write_text("".join(json.dumps(seal_row(row)) + "\n" for row in rows))
    assert one(a, b, "step1_rouge_l")["examples"] == len(CHAINS) - 1
