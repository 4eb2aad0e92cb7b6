"""The scores of a chain: the paper's ROUGE-L, and what that number hides.

Labels alone ("Task 1 output and task 2 input: Task 2 output:") earn more than a third of the paper's ROUGE-L, so each
step is also scored with the labels taken off. The scores of single examples come first (`score_examples`), so that
intervals can be had from them; `text_scores` and `step_scores` are their means, with SeqIO's signature of a metric.

A *target* is the text of a chain or its outputs, step by step, None where a step has no reference: such a step is left
out of every score. A score that an example does not have is NaN. Content is *right* when it equals the reference after
casefolding, with runs of white space as one space and none at the ends.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from coi_jax.chains.chain import is_well_formed, parse, render
from coi_jax.evaluation.rouge import rouge_l, rouge_l_unicode

Outputs = tuple[str | None, ...]
Target = str | Sequence[str | None]
ExampleScores = dict[str, Float[np.ndarray, " examples"]]

TEXT_KEYS = ("rouge_l", "rouge_l_unicode")
CHAIN_KEYS = ("content_rouge_l", "content_exact_match", "final_rouge_l", "final_exact_match", "well_formed")


def text_scores(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-L of the whole text, labels included, x 100: the paper's score, and the Unicode one."""
    return means(_stack([_score_text(outputs_of(t), p) for t, p in zip(targets, predictions, strict=True)]))


def step_scores(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """The scores of the content of each step, of the final answer and of the form, x 100."""
    return means(_stack([_score_steps(outputs_of(t), p) for t, p in zip(targets, predictions, strict=True)]))


def score_examples(targets: Sequence[Target], predictions: Sequence[str]) -> ExampleScores:
    """Every score of every example, in [0, 1] or NaN. The keys are those of `results.json`:

    `rouge_l`, `rouge_l_unicode`: of the text with its labels. `content_rouge_l`: mean over the steps of ROUGE-L of
    that step's content; a missing step scores 0. `content_exact_match`: all steps right, and no step more.
    `final_rouge_l`, `final_exact_match`: of the last output there is, whatever its number, so that an answer without
    labels counts. `well_formed`: all labels there and in order. `step{k}_rouge_l`, `step{k}_exact_match`: of one step.
    `step{k}_right_after_right`, `step{k}_right_after_wrong`: whether step k is right, over the examples whose step k-1
    is right, or wrong.
    """
    pairs = [(outputs_of(target), prediction) for target, prediction in zip(targets, predictions, strict=True)]
    return _stack([_score_text(*pair) | _score_steps(*pair) for pair in pairs])


def means(scores: ExampleScores) -> dict[str, float]:
    """The mean of each score over the examples that have it, x 100."""
    return {key: 100 * float(np.nanmean(values)) for key, values in scores.items() if not np.isnan(values).all()}


def step_counts(scores: ExampleScores) -> list[dict[str, int]]:
    """The counts behind each step's exact match and error propagation, as `results.json` has them."""
    steps = sorted(int(key[4:-12]) for key in scores if key.startswith("step") and key.endswith("_exact_match"))
    counts = []
    for k in steps:
        row = {"step": k, "references": _count(scores[f"step{k}_exact_match"])}
        row["right"] = int(np.nansum(scores[f"step{k}_exact_match"]))
        for before in ("right", "wrong"):
            after = scores.get(f"step{k}_right_after_{before}", np.array([]))
            row |= {f"after_{before}": _count(after), f"right_after_{before}": int(np.nansum(after))}
        counts.append(row)
    return counts


def _count(values: Float[np.ndarray, " examples"]) -> int:
    return int(np.sum(~np.isnan(values)))


def outputs_of(target: Target) -> Outputs:
    """The reference outputs of a target, which may be a chain's text."""
    if isinstance(target, str):
        return parse(target)
    return tuple(target)


def labels_only(targets: Sequence[Target]) -> list[str]:
    """The answer-free prediction of each target: its labels with nothing behind them."""
    return [render([""] * len(outputs_of(target))) for target in targets]


def without_final(targets: Sequence[Target]) -> list[str]:
    """The reference of every step but the last, which is empty."""
    return [render([*(output or "" for output in outputs_of(target)[:-1]), ""]) for target in targets]


def is_right(reference: str, content: str | None) -> bool:
    """Whether a step's content equals its reference but for case and white space; None is a missing step."""
    return content is not None and _normalise(content) == _normalise(reference)


def _normalise(text: str) -> str:
    return " ".join(text.casefold().split())


def _content_rouge_l(reference: str, content: str | None) -> float:
    """ROUGE-L of a content; a right one scores 1 also where it has no word for ROUGE to compare ("-", "é")."""
    if content is None:
        return 0.0
    return 1.0 if is_right(reference, content) else rouge_l(reference, content)


def _score_text(target: Outputs, prediction: str) -> dict[str, float]:
    reference = render([output or "" for output in target])
    shown = _blank_unreferenced(target, prediction)
    return {"rouge_l": rouge_l(reference, shown), "rouge_l_unicode": rouge_l_unicode(reference, shown)}


def _blank_unreferenced(target: Outputs, prediction: str) -> str:
    """The prediction without the content of steps that have no reference to compare it with."""
    outputs = parse(prediction)
    if None not in target or len(outputs) == 1:
        return prediction
    padded = (*target, *outputs[len(target) :])
    return render(["" if reference is None else output for reference, output in zip(padded, outputs, strict=False)])


def _score_steps(target: Outputs, prediction: str) -> dict[str, float]:
    outputs = parse(prediction)
    contents = (*outputs, *(None,) * len(target))
    steps = [(k, ref, contents[k - 1]) for k, ref in enumerate(target, 1) if ref is not None]
    rouge = {k: _content_rouge_l(ref, content) for k, ref, content in steps}
    right = {k: float(is_right(ref, content)) for k, ref, content in steps}
    whole = {"well_formed": float(is_well_formed(prediction, len(target)))}
    if steps:
        whole["content_rouge_l"] = sum(rouge.values()) / len(rouge)
        whole["content_exact_match"] = float(all(right.values()) and len(outputs) == len(target))
    if target[-1] is not None:
        whole["final_rouge_l"] = _content_rouge_l(target[-1], outputs[-1])
        whole["final_exact_match"] = float(is_right(target[-1], outputs[-1]))
    return whole | _per_step(rouge, right)


def _per_step(rouge: dict[int, float], right: dict[int, float]) -> dict[str, float]:
    scores = {f"step{k}_rouge_l": value for k, value in rouge.items()}
    scores |= {f"step{k}_exact_match": value for k, value in right.items()}
    for k in right:
        if k - 1 in right:
            scores[f"step{k}_right_after_{'right' if right[k - 1] else 'wrong'}"] = right[k]
    return scores


def _stack(rows: Sequence[dict[str, float]]) -> ExampleScores:
    """One array a score over all examples, in a fixed order of keys."""
    keys = sorted({key for row in rows for key in row}, key=_order)
    return {key: np.array([row.get(key, np.nan) for row in rows]) for key in keys}


def _order(key: str) -> tuple[int, int, str]:
    known = (*TEXT_KEYS, *CHAIN_KEYS)
    if key in known:
        return 0, known.index(key), key
    step, _, kind = key.removeprefix("step").partition("_")
    return int(step), 0, kind
