"""The percentiles of audits and build reports, by one definition."""

from collections.abc import Sequence

import numpy as np


def percentiles(values: Sequence[int], shares: Sequence[int]) -> list[int]:
    """Return nearest-rank percentiles: for each share p the smallest value that p% of the values do not exceed."""
    return [int(value) for value in np.percentile(np.asarray(values), shares, method="inverted_cdf")]
