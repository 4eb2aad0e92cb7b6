"""The scores of a test set, computed from those of its answers (`coi_jax.evaluation.scores`).

Labels alone ("Task 1 output and task 2 input: Task 2 output:") earn more than a third of the paper's ROUGE-L, so each
step is also scored with the labels taken off. The scores of single answers come first (`score_examples`), so that
intervals can be computed from them.

A *target* is the text of a chain or its outputs, step by step, None where a step has no reference: such a step is left
out of every score. It is the chain itself where scores need the details of its row. A score that an example does not
have is NaN.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from coi_jax.chains.chain import Chain, parse, render
from coi_jax.data.test_sets import find_test_set
from coi_jax.evaluation.benchmark_scores import BENCHMARK_SCORES
from coi_jax.evaluation.scores import (
    EXACT_MATCH,
    RIGHT_AFTER_RIGHT,
    RIGHT_AFTER_WRONG,
    SCORES,
    STEP_SCORES,
    Answer,
    Outputs,
    Score,
    ScoreKey,
)

Target = Chain | str | Sequence[str | None]
ExampleScores = dict[ScoreKey, Float[np.ndarray, " examples"]]
Scorer = Callable[[Sequence[Target], Sequence[str]], ExampleScores]


def score_examples(
    targets: Sequence[Target], predictions: Sequence[str], languages: tuple[str, ...] = ()
) -> ExampleScores:
    """Return every score of every example, in [0, 1] or NaN.

    Args:
      targets: of the examples.
      predictions: the text that was written for each.
      languages: the code of the language that is due in each step, if it is scored.
    """
    pairs = zip(targets, predictions, strict=True)
    return _stack([score_answer(_answer(target, prediction, languages)) for target, prediction in pairs])


def _answer(target: Target, prediction: str, languages: tuple[str, ...]) -> Answer:
    if isinstance(target, Chain):
        return Answer(target.outputs, prediction, target.published_targets, target.details or {}, languages)
    return Answer(outputs_of(target), prediction, target if isinstance(target, str) else None, languages=languages)


def chain_scores() -> dict[str, Score]:
    """Return the scores of whole chains, in the order in which they are written: those of every chain first."""
    return {**SCORES, **BENCHMARK_SCORES}


def score_answer(answer: Answer) -> dict[ScoreKey, float]:
    """Return the scores that an answer has, in [0, 1]."""
    scores = {ScoreKey(key): score.function(answer) for key, score in chain_scores().items()}
    for step in range(1, len(answer.references) + 1):
        scores |= {ScoreKey(kind, step): function(answer, step) for kind, function in STEP_SCORES.items()}
    return {key: value for key, value in scores.items() if value is not None}


# How a test set is scored, by `TestSet.scorer`.
SCORERS: dict[str, Scorer] = {
    "chain": score_examples,
    "english_french": functools.partial(score_examples, languages=("en", "fr")),
    "spanish_english": functools.partial(score_examples, languages=("es", "en")),
}


def find_scorer(test_set: str) -> Scorer:
    """Return the function that scores the answers to a test set; raises UserError where there is no such test set."""
    return SCORERS[find_test_set(test_set).scorer]


def means(scores: ExampleScores) -> dict[ScoreKey, float]:
    """Return the mean of each score over the examples that have it, x 100."""
    return {key: 100 * float(np.nanmean(values)) for key, values in scores.items() if not np.isnan(values).all()}


def of_example(scores: ExampleScores, place: int) -> dict[ScoreKey, float]:
    """Return the scores that one example has, x 100.

    Args:
      scores: of every example.
      place: of the example among them.
    """
    return {key: 100 * float(values[place]) for key, values in scores.items() if not np.isnan(values[place])}


def spell(scores: Mapping[ScoreKey, float]) -> dict[str, float]:
    """Return scores by their spelling in `results.json`."""
    return {str(key): value for key, value in scores.items()}


def step_counts(scores: ExampleScores) -> list[dict[str, int]]:
    """Return the counts behind each step's exact match and error propagation, as `results.json` has them."""
    steps = sorted(key.step for key in scores if key.kind == EXACT_MATCH and key.step is not None)
    return [_count_step(scores, step) for step in steps]


def _count_step(scores: ExampleScores, step: int) -> dict[str, int]:
    right = scores[ScoreKey(EXACT_MATCH, step)]
    row = {"step": step, "references": _count(right), "right": int(np.nansum(right))}
    for previous, kind in (("right", RIGHT_AFTER_RIGHT), ("wrong", RIGHT_AFTER_WRONG)):
        after = scores.get(ScoreKey(kind, step), np.array([]))
        row |= {f"after_{previous}": _count(after), kind: int(np.nansum(after))}
    return row


def _count(values: Float[np.ndarray, " examples"]) -> int:
    return int(np.sum(~np.isnan(values)))


def target_of(chain: Chain) -> Chain | str | tuple[str | None, ...]:
    """Return the target of a chain: itself where its row has details that are scored, else its text as published.

    Where that is spelled in no other way, the outputs are the target.
    """
    return chain if chain.details else chain.published_targets or chain.outputs


def outputs_of(target: Target) -> Outputs:
    """Return the reference outputs of a target, which may be a chain or its text."""
    if isinstance(target, Chain):
        return target.outputs
    if isinstance(target, str):
        return parse(target)
    return tuple(target)


def labels_only(targets: Sequence[Target]) -> list[str]:
    """Return the answer-free prediction of each target: its labels with nothing behind them."""
    return [render([""] * len(outputs_of(target))) for target in targets]


def without_final(targets: Sequence[Target]) -> list[str]:
    """Return the reference of every step but the last, which is empty, as the prediction of each target."""
    return [render([*(output or "" for output in outputs_of(target)[:-1]), ""]) for target in targets]


def _stack(rows: Sequence[Mapping[ScoreKey, float]]) -> ExampleScores:
    """Return one array per score over all examples, in a fixed order of keys."""
    keys = sorted({key for row in rows for key in row}, key=_order)
    return {key: np.array([row.get(key, np.nan) for row in rows]) for key in keys}


def _order(key: ScoreKey) -> tuple[int, int]:
    """Return the place of a score in `results.json`: those of whole chains, then step by step."""
    kinds = list(chain_scores() if key.step is None else STEP_SCORES)
    return key.step or 0, kinds.index(key.kind)
