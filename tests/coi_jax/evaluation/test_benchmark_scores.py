import json
from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.chain import Chain, Step, render
from coi_jax.common.errors import UserError
from coi_jax.evaluation import metrics
from coi_jax.evaluation.benchmark_scores import BENCHMARK_SCORES


def scores(chain: Chain, prediction: str, scorer: str = "chain") -> dict[str, float]:
    score = metrics.SCORERS[scorer]
    return metrics.spell(metrics.means(score([metrics.target_of(chain)], [prediction])))


def sifo(task: str, *answers: str) -> Chain:
    steps = tuple(Step(f"Do {answer}.", answer, task=task) for answer in answers)
    return Chain("a", "SIFo", "", "Do it.", steps, details={"sifo_task": task})


@pytest.mark.parametrize(
    ("task", "answers", "prediction", "expected"),
    [
        ("math", ("16", "1300"), render(["There are 16 eggs.", "1,300"]), (100, 100, 100)),
        ("math", ("16", "13"), render(["15", "13"]), (100, 50, 0)),
        ("qa", ("The Rhine", "a b"), render(["It is Rhine!", "b"]), (100, 100, 100)),
        ("text_modification", ("the red fig", "a fig."), render(["so, The red fig", "fig"]), (0, 50, 50)),
        ("security", ("yes", "no", "no"), render(["yes", "maybe", "no"]), (100, 200 / 3, 100 / 3)),
        ("math", ("16", "13"), "16", (0, 50, 50)),
    ],
)
def test_sifo_counts_outputs_that_hold_their_reference(
    task: str, answers: tuple[str, ...], prediction: str, expected: tuple[float, ...]
) -> None:
    found = scores(sifo(task, *answers), prediction)
    names = ("sifo_sample_accuracy", "sifo_instruction_accuracy", "sifo_depth")
    assert tuple(found[name] for name in names) == pytest.approx(expected)


def test_ifeval_counts_instructions_that_are_followed() -> None:
    details = {
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
        "kwargs": [{}, {}],
    }
    chain = Chain("a", "IFEval", "", "Write.", (Step("Write.", None),), details=details)
    names = ("all_instructions_followed", "all_instructions_followed_loosely", "instructions_followed")
    found = scores(chain, "Well, here it is:\n<<Figs>>\nThey are ripe.")
    assert [found[name] for name in names] == [0, 100, 50]
    assert set(found) == {*names, "well_formed"}
    assert [scores(chain, "<<Figs>> ripen")[name] for name in names] == [100, 100, 100]


@pytest.mark.parametrize(
    ("ids", "arguments", "said"),
    [
        (["x:y"], [{}], "instruction x:y is unknown"),
        ([["x"]], [{}], "instruction .* is unknown"),
        (["keywords:existence"], [{}], "argument keywords of keywords:existence is missing"),
        (["keywords:existence"], [{"keywords": [1]}], "argument keywords of keywords:existence is"),
        (["punctuation:no_comma"], [], "lists of equal lengths"),
        ("punctuation:no_comma", [{}], "lists of equal lengths"),
        (["punctuation:no_comma"], [1], "lists of equal lengths, of names and of objects"),
    ],
)
def test_details_by_which_nothing_can_be_verified_are_named(ids: Any, arguments: Any, said: str) -> None:
    """People write rows of test sets by hand too."""
    details = {"instruction_id_list": ids, "kwargs": arguments}
    with pytest.raises(UserError, match=said):
        scores(Chain("a", "IFEval", "", "Write.", (Step("Write.", None),), details=details), "text")


def test_answers_to_other_chains_have_none_of_these_scores() -> None:
    found = scores(Chain("a", "s", "", "Do.", (Step("Do.", "fig"),)), "fig")
    assert not set(found) & set(BENCHMARK_SCORES)
    assert not [name for name in found if name.endswith("in_language")]


ENGLISH, FRENCH = "Call your friends and spend some time with them.", "Appelez vos amis et passez du temps avec eux."


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (render([ENGLISH, FRENCH]), (100, 100)),
        (render([FRENCH, FRENCH]), (0, 100)),
        (render([ENGLISH, ENGLISH]), (100, 0)),
        (render([ENGLISH, ""]), (100, 0)),
        (ENGLISH, (100, 0)),
    ],
)
def test_outputs_of_wikilingua_are_valid_in_the_language_that_is_due(
    prediction: str, expected: tuple[float, float]
) -> None:
    steps = (Step("Summarize.", ENGLISH), Step("Translate into French.", FRENCH))
    found = scores(Chain("a", "s", "text", "Summarize, then translate.", steps), prediction, "english_french")
    assert (found["step1_in_language"], found["step2_in_language"]) == expected
    assert {"rouge_l", "step1_rouge_l", "step2_rouge_l"} <= set(found)


def test_the_releases_own_summaries_are_valid(release_folder: Path) -> None:
    path = release_folder / "data/test/eng2fra_summarize_then_translate200.json"
    rows = json.loads(path.read_text(encoding="utf-8"))[:20]
    targets = [(row["eng_output"], row["output"]) for row in rows]
    found = metrics.SCORERS["english_french"](targets, [render(target) for target in targets])
    values = metrics.spell(metrics.means(found))
    assert [values[key] for key in ("step1_in_language", "step2_in_language", "rouge_l")] == [100, 100, 100]
