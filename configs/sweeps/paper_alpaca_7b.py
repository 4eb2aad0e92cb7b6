"""Alpaca-7B as it is, and tuned on mixtures of chain lengths: the rows of the paper's table 4.

Command: `python -m launch.sweep --sweep configs/sweeps/paper_alpaca_7b.py --backend local`
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/paper/alpaca_7b.py:released"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield the baselines that are prompted, then the arms that are tuned."""
    for arm in ("base", "cot", "ltm", "coi1", "coi2", "coi3", "coi12", "coi123"):
        yield {"arm": arm}
