"""The quickstart's model tuned on more and more of the data, each part of the next, for the same number of steps.

Command: `python -m launch.sweep --sweep configs/sweeps/data_size.py --backend local`. Data: the quickstart's.
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each number of examples; None is all 18,000."""
    for examples in (1125, 2250, 4500, 9000, None):
        yield {"arm": "coi123", "data.max_examples": examples}
