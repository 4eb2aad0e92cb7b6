import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rouge_score import rouge_scorer

from coi_jax.chains.chain import parse, render
from coi_jax.data.test_sets import TEST_SETS, TestSet
from coi_jax.evaluation import metrics
from coi_jax.evaluation.scores import SCORES, STEP_SCORES, Answer, Score, ScoreKey

GOLD = [("a red apple", "red apple", "7"), ("two", "three", "four")]


def _scores(targets: Sequence[Sequence[str | None]], predictions: list[str]) -> dict[str, float]:
    return metrics.spell(metrics.means(metrics.score_examples(targets, predictions)))


def test_gold_earns_everything() -> None:
    scores = _scores(GOLD, [render(outputs) for outputs in GOLD])
    undecided = {key for key in scores if key.endswith("_after_wrong")}
    assert undecided == set()
    assert all(value == pytest.approx(100) for value in scores.values())


def test_content_ignores_case_and_white_space() -> None:
    scores = _scores([("A b", "C")], ["Task 1 output and task 2 input:  a   B \n\nTask 2 output: c"])
    assert scores["content_exact_match"] == scores["content_rouge_l"] == 100


def test_content_does_not_depend_on_how_letters_are_composed() -> None:
    scores = _scores([("été", "\u1e69")], [render(["e\u0301te\u0301", "s\u0307\u0323"])])
    assert scores["content_exact_match"] == 100
    assert _scores([("x²", "y")], [render(["x2", "y"])])["content_exact_match"] == 0


def test_labels_in_markdown_are_labels() -> None:
    scores = _scores([("a b", "c")], ["**Task 1 output and task 2 input:** a b\n**Task 2 output:** c"])
    assert {scores[key] for key in ("rouge_l", "content_exact_match", "well_formed")} == {100.0}


PUBLISHED = "Task 1 output and task 2 input: fig pear\nTask2 output: fig"


@pytest.mark.parametrize("prediction", [PUBLISHED, render(["fig pear", "fig"])])
def test_a_published_text_scores_full_whatever_the_spelling_of_labels(prediction: str) -> None:
    scores = _scores([PUBLISHED], [prediction])
    whole = ("rouge_l", "rouge_l_unicode", "super_ni_exact_match", "content_exact_match", "well_formed")
    assert {scores[key] for key in whole} == {100.0}
    assert _scores([PUBLISHED], ["fig"])["rouge_l"] < 30


@pytest.mark.parametrize(
    ("prediction", "full"),
    [
        (PUBLISHED, {"rouge_l", "rouge_l_verbatim"}),
        (render(["fig pear", "fig"]), {"rouge_l", "rouge_l_canonical"}),
    ],
)
def test_each_spelling_of_the_labels_is_whole_in_its_own_score(prediction: str, full: set[str]) -> None:
    scores = _scores([PUBLISHED], [prediction])
    assert {key for key in ("rouge_l", "rouge_l_verbatim", "rouge_l_canonical") if scores[key] == 100} == full


@pytest.mark.parametrize(
    "prediction", ["fig", "Task2 output: fig", PUBLISHED, "Task 1 output: pear fig\n**Task 2 output:** a"]
)
def test_texts_that_nobody_spelled_in_another_way_have_one_score(prediction: str) -> None:
    scores = _scores([("fig pear", "fig")], [prediction])
    assert scores["rouge_l_verbatim"] == scores["rouge_l_canonical"] == scores["rouge_l"]


@pytest.mark.parametrize(
    "prediction", ["fig", "Task 1 output: pear. Task2 output: figs", PUBLISHED, "task 2 output: fig", ""]
)
def test_verbatim_and_canonical_scores_are_those_of_the_reference_code_on_the_texts_as_they_are(
    prediction: str,
) -> None:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    scores = _scores([PUBLISHED], [prediction])
    for key, reference in (("rouge_l_verbatim", PUBLISHED), ("rouge_l_canonical", render(["fig pear", "fig"]))):
        assert scores[key] == pytest.approx(100 * scorer.score(reference, prediction)["rougeL"].fmeasure)


@pytest.mark.parametrize(
    ("prediction", "equal"),
    [("Fig, pear.", 100), ("fig  pear", 100), ("fig-pear", 0), ("the fig pear", 0), ("figpear", 0), ("fíg pear", 0)],
)
def test_exact_match_of_super_natural_instructions(prediction: str, equal: float) -> None:
    """As its `normalize_answer`: lower case, no punctuation, single spaces, articles kept."""
    assert _scores([("fig pear",)], [prediction])["super_ni_exact_match"] == equal


def test_labels_earn_text_score_and_no_content() -> None:
    scores = _scores(GOLD, metrics.labels_only(GOLD))
    assert scores["rouge_l"] > 50
    assert scores["content_rouge_l"] == scores["final_rouge_l"] == scores["content_exact_match"] == 0
    assert scores["well_formed"] == 100


def test_missing_steps_score_nothing_and_final_is_the_last_output_there_is() -> None:
    scores = _scores([("x y", "z")], ["z"])
    assert scores["final_exact_match"] == 100
    assert scores["step2_exact_match"] == scores["step2_rouge_l"] == scores["well_formed"] == 0


def test_extra_step_is_not_the_whole_chain() -> None:
    scores = _scores([("x", "y")], [render(["x", "y", "y"])])
    assert scores["step1_exact_match"] == scores["step2_exact_match"] == 100
    assert scores["content_exact_match"] == scores["well_formed"] == 0


@pytest.mark.parametrize("symbol", ["-", "é", "", "<= 3", "[]"])
def test_right_content_without_a_word_scores_full(symbol: str) -> None:
    assert _scores([("x", symbol)], [render(["x", symbol])])["content_rouge_l"] == 100


def test_error_propagation_is_counted() -> None:
    targets = [("a", "b")] * 4
    predictions = [render(p) for p in (("a", "b"), ("a", "no"), ("no", "b"), ("no", "no"))]
    scores = metrics.score_examples(targets, predictions)
    assert metrics.means(scores)[ScoreKey("right_after_right", 2)] == 50
    assert metrics.step_counts(scores)[1] == {
        "step": 2,
        "references": 4,
        "right": 2,
        "after_right": 2,
        "right_after_right": 1,
        "after_wrong": 2,
        "right_after_wrong": 1,
    }


def test_steps_without_reference_are_left_out() -> None:
    scores = _scores([(None, "b c")], [render(["whatever it says", "b c"])])
    assert "step1_rouge_l" not in scores
    assert "step2_right_after_right" not in scores
    assert scores["rouge_l"] == scores["content_exact_match"] == 100


def test_chain_without_any_reference_has_only_form() -> None:
    assert set(_scores([(None, None)], [render(["a", "b"])])) == {"well_formed"}


def test_lengths_may_be_mixed() -> None:
    scores = metrics.score_examples([("a",), ("a", "b")], ["a", render(["a", "x"])])
    assert np.isnan(scores[ScoreKey("exact_match", 2)][0])
    assert metrics.means(scores)[ScoreKey("exact_match", 2)] == 0
    assert metrics.means(scores)[ScoreKey("exact_match", 1)] == 100


def test_text_and_outputs_are_the_same_target() -> None:
    predictions = [render(["a red pear", "pear", "7"]), "two"]
    assert _scores([render(t) for t in GOLD], predictions) == _scores(GOLD, predictions)


def test_unequal_numbers_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        metrics.score_examples(GOLD, ["one"])


def test_keys_are_spelled_with_their_step_and_written_in_order() -> None:
    scores = metrics.score_examples([("a", "b")], [render(["a", "b"])])
    assert str(ScoreKey("rouge_l")) == "rouge_l"
    assert [str(key) for key in scores] == [
        *SCORES,
        "step1_exact_match",
        "step1_rouge_l",
        "step2_exact_match",
        "step2_right_after_right",
        "step2_rouge_l",
    ]


def test_a_chain_of_ten_steps_is_written_in_order() -> None:
    steps = tuple("abcdefghij")
    scores = metrics.score_examples([steps], [render(steps)])
    assert [key.step for key in scores if key.kind == "exact_match"] == list(range(1, 11))
    assert [row["step"] for row in metrics.step_counts(scores)] == list(range(1, 11))


def test_a_score_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(answer: Answer) -> float | None:
        return None if None in answer.references else 0.5

    def has_step(answer: Answer, step: int) -> float:
        return float(step <= len(answer.outputs))

    monkeypatch.setitem(SCORES, "half", Score("half", "Half of everything", half))
    monkeypatch.setitem(STEP_SCORES, "present", has_step)
    scores = metrics.score_examples([("a", "b"), ("a", None)], [render(["a", "b"]), "a"])
    assert metrics.means(scores)[ScoreKey("half")] == 50
    assert np.isnan(scores[ScoreKey("half")][1])
    assert metrics.spell(metrics.means(scores))["step2_present"] == 50


def test_every_test_set_has_a_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {test.scorer for test in TEST_SETS.values()} <= set(metrics.SCORERS)
    monkeypatch.setitem(metrics.SCORERS, "none", lambda targets, predictions: {})
    monkeypatch.setitem(TEST_SETS, "a_test", TestSet("a_test", "coi", "test", 2, scorer="none"))
    assert metrics.find_scorer("a_test")(GOLD, [""] * 2) == {}
    assert metrics.find_scorer("coi2_test") is metrics.score_examples


# The figures that the labels and the earlier steps earn on the real test sets, ROUGE-L against the references as spelt.
HIDDEN = {2: (39.1, 80.7, 76.0, 95.7), 3: (36.0, 86.2, 87.4, 100.0)}


@pytest.mark.parametrize("length", [2, 3])
def test_what_the_metric_hides(release_folder: Path, length: int) -> None:
    rows = json.loads((release_folder / f"data/test/coi{length}_test.json").read_text(encoding="utf-8"))
    spelt = [row["output"] for row in rows]
    outputs = [tuple(output.strip() for output in parse(text)) for text in spelt]
    rows_of = (
        metrics.labels_only(outputs),
        [" ".join(each) for each in outputs],
        metrics.without_final(outputs),
        [render(each) for each in outputs],
    )
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    for predictions, expected in zip(rows_of, HIDDEN[length], strict=True):
        pairs = zip(spelt, predictions, strict=True)
        mean = np.mean([scorer.score(one, prediction)["rougeL"].fmeasure for one, prediction in pairs])
        assert 100 * mean == pytest.approx(expected, abs=0.05)


# The same answers by the three scores of the whole text, on the chains as the release spells them: against its
# references whatever the labels of the answer, against them verbatim, and against the canonical spelling (95.7 over
# all rows, where every fourth is scored here).
SPELLINGS = {
    2: {"canonical": (100.0, 95.61, 100.0), "as released": (100.0, 100.0, 95.61)},
    3: {"canonical": (100.0, 100.0, 100.0), "as released": (100.0, 100.0, 100.0)},
}


@pytest.mark.parametrize("length", [2, 3])
def test_the_releases_own_text_is_whole_by_the_score_beside_the_papers(release_folder: Path, length: int) -> None:
    rows = json.loads((release_folder / f"data/test/coi{length}_test.json").read_text(encoding="utf-8"))
    released = [row["output"] for row in rows[::4]]
    canonical = [render([output.strip() for output in parse(text)]) for text in released]
    keys = ("rouge_l", "rouge_l_verbatim", "rouge_l_canonical")
    for name, predictions in (("canonical", canonical), ("as released", released)):
        scores = _scores(released, predictions)
        assert [scores[key] for key in keys] == pytest.approx(SPELLINGS[length][name], abs=0.005)
