"""The quickstart's model tuned on a teacher's answers, with its strategy erased from the prompt and with it kept.

Command: `python -m launch.sweep --sweep configs/sweeps/erasure.py --backend local`. Data, computed, no language model:
`python -m data_pipeline.build --source procedural:lists --out data/erased '--config.variants=("erased","kept")'`.
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/quickstart.py"


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for the arm on chains as they are, and on answers with and without their strategy."""
    for variant in ("", "_erased", "_kept"):
        yield {
            "arm": f"coi12{variant}",
            "data.folder": "data/erased",
            "data.length": 256,  # a strategy takes a fourth of it
            "evaluation.tests": ("coi2_test", "coi_erased2_test", "coi_kept2_test"),
        }
