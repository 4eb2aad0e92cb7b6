"""SmolLM2-135M-Instruct tuned on the release's chains and on their variants: the paper's ablations of its data.

Command: `python -m launch.sweep --sweep configs/sweeps/release_variants.py --backend local`, after `make smollm2`,
which makes the folders of the weights and of the data.
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/smollm2.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each arm on each variant."""
    for arm in ("coi2", "coi12", "coi123"):
        for variant in ("", "_irrelevant", "_summarized"):
            yield {"arm": f"{arm}{variant}"}
