"""Alpaca-7B tuned on the release's chains as they are, with irrelevant outputs, and with fused instructions.

The paper's ablations; `--config.weights.folder` and the other fields of `configs/paper/mistral_7b.py` make them
Mistral's. Each alone: `configs/paper/irrelevant.py`, `configs/paper/summarized.py`, `configs/paper/single_length.py`.
Command: `python -m launch.sweep --sweep configs/sweeps/paper_ablations.py --backend local`
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/paper/alpaca_7b.py:released"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each arm on each variant."""
    for arm in ("coi2", "coi3", "coi12", "coi123"):
        for variant in ("", "_irrelevant", "_summarized"):
            yield {"arm": f"{arm}{variant}"}
