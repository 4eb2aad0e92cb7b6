"""Chains of one length alone: the rows coi2 and coi3 of the paper's table 4, beside coi1.

Argument: alpaca or mistral, by the released trainer's settings (`configs/paper/alpaca_7b.py`).
Command: `python -m coi_jax.train --config configs/paper/single_length.py:alpaca --config.arm=coi3 --workdir
gs://bucket/runs/coi3`, and the same with coi2 and coi1.
Paper: ROUGE-L on coi2_test / coi3_test / bbh of Alpaca: coi1 32.3 / 21.8 / 28.7, coi2 62.0 / 48.2 / 12.1, coi3 31.6 /
47.0 / 7.0; of Mistral: coi1 39.7 / 29.6 / 27.7, coi2 60.4 / 48.3 / 10.7, coi3 33.6 / 60.0 / 5.8.

Cost, by preflight for a v5e-64 at $1.20 a chip-hour, whose step is that of `configs/paper/alpaca_7b.py`: the 157 steps
of coi1 take 1 to 3 minutes, $2 to $3, the 35 of coi2 and the 26 of coi3 less than a minute, less than $1.
"""

from ml_collections import ConfigDict

from configs import base
from configs.paper import alpaca_7b, mistral_7b

MODELS = {"alpaca": alpaca_7b, "mistral": mistral_7b}


def get_config(model: str = "alpaca") -> ConfigDict:
    base.check_variant(model, *MODELS)
    config: ConfigDict = MODELS[model].get_config()
    config.arm = "coi2"
    return config
