"""The quickstart's model tuned with a loss on all steps, on the last one alone, and with more on late or early ones.

Command: `python -m launch.sweep --sweep configs/sweeps/step_loss.py --backend local`. Data: the quickstart's.
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each loss."""
    yield {"arm": "coi123", "train.loss_on": "all_steps"}
    yield {"arm": "coi123", "train.loss_on": "last_step"}
    for weights in ((1.0, 2.0, 4.0), (4.0, 2.0, 1.0)):
        yield {"arm": "coi123", "train.loss_on": "weighted_steps", "train.loss_on.weights": weights}
