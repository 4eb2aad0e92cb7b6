"""The quickstart's model tuned on chains of one, two and three steps in different shares: a grid on the simplex.

Command: `python -m launch.sweep --sweep configs/sweeps/mixture_ratios.py --backend local`. Data: the quickstart's. Each
point takes as many steps; the corners and edges, which lack a length, are the arms of one length and `coi12`.
"""

import itertools
from collections.abc import Iterator
from typing import Any

CONFIG = "configs/quickstart.py"
PARTS = 5  # of each of which a length has at least one


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each way to share out the parts among the lengths."""
    for one, two in itertools.product(range(1, PARTS), repeat=2):
        if one + two < PARTS:
            yield {"arm": "coi123", "data.ratios": {1: one, 2: two, 3: PARTS - one - two}}
