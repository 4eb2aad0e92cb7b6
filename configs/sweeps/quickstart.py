"""The quickstart's sweep: the same model tuned on chains of length 1, of lengths 1–2, and of lengths 1–3.

Command: `python -m launch.sweep --sweep configs/sweeps/quickstart.py --backend local --out runs/quickstart`
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each arm."""
    for arm in ("coi1", "coi12", "coi123"):
        yield {"arm": arm}
