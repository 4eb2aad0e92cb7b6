"""SmolLM2-135M-Instruct as it is, and tuned on four mixtures of chain lengths: the rows of the paper's table 4.

Command: `make smollm2`, or `python -m launch.sweep --sweep configs/sweeps/smollm2.py --backend local`.
`configs/sweeps/smollm2_lora.py` tunes adapters instead of all weights.
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/smollm2.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield the baselines that are prompted, then the arms that are tuned."""
    for arm in ("base", "cot", "ltm", "coi1", "coi2", "coi12", "coi123"):
        yield {"arm": arm}
