"""The quickstart's model tuned on chains of one, two and three steps in different shares: a grid on the simplex.

Command: `python -m launch.sweep --sweep configs/sweeps/mixture_ratios.py --backend local`. Data: the quickstart's. Each
point takes as many steps; the corners and edges, which lack a length, are the arms of one length and `coi12`.
"""

from collections.abc import Iterator
from typing import Any

from configs import grids

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each way to share out five parts among the lengths."""
    yield from grids.crossed([{"arm": "coi123"}], grids.simplex("data.ratios", (1, 2, 3), parts=5))
