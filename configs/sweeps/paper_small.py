"""The small twins of the paper's recipes: the rows of table 4, the ablations, and the multilingual experiment.

Command: `python -m coi_jax.train --config configs/paper/small.py:base --workdir runs/paper_small_base`, then
`python -m launch.sweep --sweep configs/sweeps/paper_small.py --backend local`, then
`python -m coi_jax.tables --runs runs/paper_small --all --out runs/paper_small/report`. Data: the release's.
"""

from collections.abc import Iterator
from typing import Any

CONFIG = "configs/paper/small.py:twin"

TABLE4 = ("base", "cot", "ltm", "coi1", "coi2", "coi3", "coi12", "coi123")
ABLATIONS = ("coi12_irrelevant", "coi123_irrelevant", "coi12_summarized", "coi123_summarized")
MULTILINGUAL = ("base", "coi12")
TABLE6 = ("coi2_test", "coi3_test", "bbh", "wikilingua_en_fr", "wikilingua_es_en")


def sweep() -> Iterator[dict[str, Any]]:
    """Yield one point for each row of table 4 and each ablation; the rows of table 6 have more test sets."""
    for arm in (*TABLE4, *ABLATIONS):
        yield {"arm": arm} | ({"evaluation.tests": TABLE6} if arm in MULTILINGUAL else {})
