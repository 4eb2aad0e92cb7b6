"""The paper's ablation of incorrect intermediate outputs: coi12 tuned on chains whose outputs are of other chains.

Argument: alpaca or mistral, by the released trainer's settings (`configs/paper/alpaca_7b.py`).
Command: `python -m coi_jax.train --config configs/paper/irrelevant.py:alpaca --workdir gs://bucket/runs/irrelevant`;
all arms and variants: `python -m launch.sweep --sweep configs/sweeps/paper_ablations.py --backend local`.
Paper: its scores stand in an appendix that is not public; to be compared with coi12 as it is: ROUGE-L on coi2_test /
coi3_test 67.5 / 50.2 (Alpaca), 70.8 / 59.8 (Mistral).

Cost, by preflight for a v5e-64 at $1.20 a chip-hour: as coi12 192 steps, 2 to 3 minutes, $2 to $4.
"""

from ml_collections import ConfigDict

from configs import base
from configs.paper import alpaca_7b, mistral_7b

MODELS = {"alpaca": alpaca_7b, "mistral": mistral_7b}


def get_config(model: str = "alpaca") -> ConfigDict:
    base.check_variant(model, *MODELS)
    config: ConfigDict = MODELS[model].get_config()
    config.arm = "coi12_irrelevant"
    config.evaluation.tests = ("coi2_test", "coi3_test")
    return config
