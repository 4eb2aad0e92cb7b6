"""The quickstart's three arms with three seeds each: the mean and the spread behind its published figure.

Command: `python -m launch.sweep --sweep configs/sweeps/quickstart_seeds.py --backend local --out runs/seeds`, then
`python -m coi_jax.tables --runs runs/seeds --table 4 --figure 6 --out runs/seeds/report`. Data: the quickstart's.
"""

from collections.abc import Iterator
from typing import Any

from configs import grids

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each seed and arm."""
    yield from grids.product({"seed": (0, 1, 2), "arm": ("coi1", "coi12", "coi123")})
