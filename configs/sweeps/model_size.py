"""Networks of growing width, with a learning rate for each, tuned on the quickstart's data.

Command: `python -m launch.sweep --sweep configs/sweeps/model_size.py --backend local`. Data: the quickstart's.
"""

from collections.abc import Iterator
from typing import Any

from configs import grids

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each width."""
    sizes = {
        "model.model_dim": (64, 128, 256),
        "model.mlp_dim": (176, 352, 704),
        "optimizer.learning_rate": (4e-3, 2e-3, 1e-3),
    }
    yield from grids.crossed([{"arm": "coi12"}], grids.zipped(sizes))
