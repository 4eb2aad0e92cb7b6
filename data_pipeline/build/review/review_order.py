"""Orders chains for review by a person: a random sample in which doubtful chains come sooner."""

import math
from collections.abc import Iterable

from coi_jax.common import files
from data_pipeline.build.drafts import Draft

DECAY = 4.0  # a chain is so many times less likely to be drawn for each score further from the threshold


def review_order(drafts: Iterable[Draft], least_score: int, seed: int) -> list[Draft]:
    """Return all chains in the order of a weighted draw without replacement (Efraimidis and Spirakis 2006).

    A chain is drawn with a chance that grows with the doubt in its second opinion, so a person's time goes where it
    is worth most, and yet every chain may come. The same seed gives the same order.

    Args:
      drafts: the chains.
      least_score: the threshold of second opinions, around which chains are doubtful.
      seed: of the draw.
    """
    return sorted(drafts, key=lambda draft: _key(draft, least_score, seed))


def _key(draft: Draft, least_score: int, seed: int) -> float:
    uniform = (int(files.digest([seed, draft.id])[:12], 16) + 1) / (16**12 + 1)
    return -math.log(uniform) / weight(draft, least_score)


def doubt(draft: Draft, least_score: int) -> str | None:
    """Return why a chain is among the most doubtful; None where it is not.

    Args:
      draft: the chain.
      least_score: the threshold of second opinions.
    """
    opinion = draft.opinion
    if opinion is None:
        return "no second opinion was asked for"
    if opinion.valid != (opinion.score >= least_score):
        verdict = "right" if opinion.valid else "wrong"
        return (
            f"the second opinion contradicts itself: {verdict}, but {opinion.score} of 5, where {least_score} is needed"
        )
    if weight(draft, least_score) == 1:
        side = "just enough" if opinion.score >= least_score else "just too little"
        return f"the second opinion gives {opinion.score} of 5, {side}: {least_score} is needed"
    return None


def weight(draft: Draft, least_score: int) -> float:
    """Return 1 for the most doubtful chains, and less the further the score is from the threshold.

    Full doubt: there is no opinion, or its verdict and its score contradict each other.
    """
    opinion = draft.opinion
    if opinion is None or opinion.valid != (opinion.score >= least_score):
        return 1.0
    return float(DECAY ** -(abs(opinion.score - (least_score - 0.5)) - 0.5))
