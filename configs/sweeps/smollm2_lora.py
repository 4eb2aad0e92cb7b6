"""SmolLM2-135M-Instruct tuned on four mixtures of chain lengths by adapters of rank 16.

Command: `python -m launch.sweep --sweep configs/sweeps/smollm2_lora.py --backend local --out runs/smollm2_lora`, after
`make smollm2`, which makes the folder of the weights and runs the baselines.
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/smollm2.py:lora"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each arm that is tuned."""
    for arm in ("coi1", "coi2", "coi12", "coi123"):
        yield {"arm": arm}
