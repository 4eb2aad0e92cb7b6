"""Three mixtures of chain lengths with three seeds each: half of the chains are of one length, a quarter of each other.

Command: `python -m launch.sweep --sweep configs/sweeps/mixture_seeds.py --backend local --out runs/mixture_seeds`, then
`python -m coi_jax.tables --runs runs/mixture_seeds --figure sweep --out runs/mixture_seeds/report`. Data: the
quickstart's.
"""

from collections.abc import Iterator
from typing import Any

from configs import grids

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each seed and mixture."""
    mixtures = grids.crossed([{"arm": "coi123"}], grids.simplex("data.ratios", (1, 2, 3), parts=4))
    yield from grids.crossed(grids.product({"seed": (0, 1, 2)}), mixtures)
