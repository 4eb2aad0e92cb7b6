"""The quickstart's model tuned on chains as they are, with irrelevant outputs, in another order, and on final answers.

Command: `python -m launch.sweep --sweep configs/sweeps/variants.py --backend local`. Data: the quickstart's, written
with `--variants irrelevant,shuffled,final` besides.
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each arm on each variant."""
    for arm in ("coi12", "coi123"):
        for variant in ("", "_irrelevant", "_shuffled", "_final"):
            yield {"arm": f"{arm}{variant}"}
