"""How often run A is preferred to run B, with bootstrap intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coi_jax.evaluation.bootstrap import bootstrap
from coi_jax.judging.answer_pairs import AnswerPair, is_same_answer
from coi_jax.judging.verdicts import ORDERS, Choice, Judgement

POINTS = {"a": 1.0, "tie": 0.5, "b": 0.0}


def settle(judgement: Judgement) -> Choice | None:
    """Return the verdict on a pair: that of both orders, a tie where they differ; None where one was not usable."""
    if None in judgement.choices:
        return None
    first = judgement.choices[0]
    return first if len(set(judgement.choices)) == 1 else "tie"


def summarize(
    pairs: Sequence[AnswerPair], judgements: Sequence[Judgement], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Return the shares of pairs that each run won, and how far the judge agrees with itself; all x 100.

    `win_rate`: wins of A and half of the ties. `wins`, `ties`, `losses`: of A. All with 95% bootstrap intervals over
    pairs. `order_agreement`: pairs with the same verdict in both orders, of those that were asked about. `first_rate`:
    how often the answer that stood first was chosen, of all choices that are no tie. `unusable`: pairs without a usable
    reply in both orders, which are left out. `same`: pairs of equal answers, which are ties and were not asked about.

    Args:
      pairs: all pairs of answers.
      judgements: of those whose answers differ.
      resamples: behind the intervals.
      seed: of the resampling.
    """
    same = sum(map(is_same_answer, pairs))
    settled = [choice for judgement in judgements if (choice := settle(judgement))]
    ties: list[Choice] = ["tie"] * same
    choices = [*settled, *ties]
    usable = [judgement for judgement in judgements if None not in judgement.choices]
    return {
        "pairs": len(pairs),
        "same": same,
        "unusable": len(judgements) - len(usable),
        **preference(choices, resamples, seed),
        "order_agreement": _percent([len(set(judgement.choices)) == 1 for judgement in usable]),
        "first_rate": _percent([is_first for judgement in usable for is_first in _chose_first(judgement)]),
    }


def _chose_first(judgement: Judgement) -> list[bool]:
    """Return whether the answer that stood first was chosen, for each order whose choice is no tie."""
    pairs = zip(judgement.choices, ORDERS, strict=True)
    return [choice == order[0] for choice, order in pairs if choice != "tie"]


def preference(choices: Sequence[Choice], resamples: int, seed: int) -> dict[str, Any]:
    """Return win rate, wins, ties and losses of run A x 100, each with its interval; empty where there is no choice.

    Args:
      choices: of each pair.
      resamples: behind the intervals.
      seed: of the resampling.
    """
    if not choices:
        return {}
    names = ("win_rate", "wins", "ties", "losses")
    rows = [[POINTS[choice], choice == "a", choice == "tie", choice == "b"] for choice in choices]
    values = 100 * np.array(rows, np.float64)
    low, high = bootstrap(values, resamples, seed)
    means = values.mean(0)
    return {
        name: {"value": float(means[k]), "low": float(low[k]), "high": float(high[k])} for k, name in enumerate(names)
    }


def majority(people: Sequence[Mapping[str, Choice]]) -> dict[str, Choice]:
    """Return the choice of most people on each pair, by the ids of chains; a tie where no run has more than the other.

    Args:
      people: the choices of each; a pair may be judged by some of them alone.
    """
    ids = dict.fromkeys(id for choices in people for id in choices)
    points = {id: [POINTS[choices[id]] for choices in people if id in choices] for id in ids}
    means = {id: sum(values) / len(values) for id, values in points.items()}
    return {id: "a" if mean > POINTS["tie"] else "b" if mean < POINTS["tie"] else "tie" for id, mean in means.items()}


def agreement(one: Mapping[str, Choice], other: Mapping[str, Choice]) -> dict[str, Any]:
    """Return how far two sets of choices agree: the share of equal ones x 100, and Cohen's kappa (1960).

    Args:
      one: choices by the ids of chains.
      other: those of another judge; chains that only one has judged are left out.
    """
    shared = sorted(one.keys() & other.keys())
    if not shared:
        return {"pairs": 0}
    observed = sum(one[id] == other[id] for id in shared) / len(shared)
    shares = [[sum(choices[id] == kind for id in shared) / len(shared) for kind in POINTS] for choices in (one, other)]
    expected = sum(first * second for first, second in zip(*shares, strict=True))
    kappa = (observed - expected) / (1 - expected) if expected < 1 else None
    return {"pairs": len(shared), "agreement": 100 * observed, "kappa": kappa}


def _percent(holds: Sequence[bool]) -> float | None:
    return 100 * sum(holds) / len(holds) if holds else None
