"""SmolLM2-135M-Instruct tuned by adapters of growing rank, on the paper's release.

Command: `python -m launch.sweep --sweep configs/sweeps/lora_rank.py --backend local`, after `make smollm2`, which makes
the folders of the weights and of the data.
"""

from collections.abc import Iterator
from typing import Any

from configs import grids

CONFIG = "configs/smollm2.py:lora"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each rank."""
    yield from grids.product({"arm": ("coi12",), "lora.rank": (2, 8, 32, 128)})
