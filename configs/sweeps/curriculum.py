"""The quickstart's model tuned on all lengths from the start, with short chains first, and with long chains first.

Command: `python -m launch.sweep --sweep configs/sweeps/curriculum.py --backend local`. Data: the quickstart's.
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each schedule: the step from which chains of each length are seen."""
    for schedule in (None, {1: 0, 2: 250, 3: 500}, {1: 500, 2: 250, 3: 0}):
        yield {"arm": "coi123", "data.curriculum": schedule}
