"""Bootstrap percentile intervals of mean scores (Efron and Tibshirani, 1993, chapter 13)."""

from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field

from coi_jax.common.arguments import Count, Seed, checked
from coi_jax.common.errors import UserError

Resamples = Annotated[Count, Field(le=1_000_000)]  # more would fill the memory
LEVEL = 95.0  # per cent of the resamples that an interval covers


@checked
def bootstrap(
    values: Float[np.ndarray, "examples scores"], resamples: Resamples, seed: Seed
) -> tuple[Float[np.ndarray, " scores"], Float[np.ndarray, " scores"]]:
    """Return the low and high ends of the interval of each score's mean.

    Examples are drawn with replacement, the same ones for every score. NaN marks a score that an example does not have:
    it is left out of that score's mean, and a resample that has none of them is left out of the interval.

    Args:
      values: one row per example.
      resamples: how many times to draw.
      seed: of the draws; the same seed gives the same interval.
    """
    if not values.size:
        raise UserError("values", values.shape, "give at least one example, and one score")
    return interval(resampled_means(values, resamples, seed))


def resampled_means(
    values: Float[np.ndarray, "examples scores"], resamples: int, seed: int
) -> Float[np.ndarray, "resamples scores"]:
    """Return the mean of each score in each resample, NaN where it has none of the score's examples.

    Args:
      values: one row per example, as for `bootstrap`.
      resamples: how many times to draw.
      seed: of the draws.
    """
    present = ~np.isnan(values)
    times_drawn = draws(len(values), resamples, seed)
    sums, counts = times_drawn @ np.where(present, values, 0.0), times_drawn @ present.astype(np.float64)
    means: np.ndarray = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return means


def interval(
    means: Float[np.ndarray, "resamples scores"],
) -> tuple[Float[np.ndarray, " scores"], Float[np.ndarray, " scores"]]:
    """Return the low and high ends of the percentile interval of each score, from its means in the resamples."""
    tail = (100 - LEVEL) / 2
    low, high = np.nanpercentile(means, [tail, 100 - tail], axis=0)
    return low, high


def draws(examples: int, resamples: int, seed: int) -> Float[np.ndarray, "resamples examples"]:
    """Return how often each example is drawn in each resample."""
    uniform = np.full(examples, 1 / examples)
    return np.random.default_rng(seed).multinomial(examples, uniform, size=resamples).astype(np.float64)
