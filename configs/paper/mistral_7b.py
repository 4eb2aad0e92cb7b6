"""Mistral-7B-Instruct tuned on chains: the paper's table 4, columns Mistral-7B.

The paper's settings for Mistral are not public; these are those of the released trainer for Alpaca-7B, in both
variants of `configs/paper/alpaca_7b.py`.

Command: `python -m launch.sweep --sweep configs/sweeps/paper_mistral_7b.py --backend local`
Paper: ROUGE-L on coi2_test / coi3_test / bbh: base 24.9 / 23.7 / 8.5, coi1 39.7 / 29.6 / 27.7, coi2 60.4 / 48.3 /
10.7, coi12 70.8 / 59.8 / 24.4, coi123 45.2 / 61.6 / 29.4.

Cost of coi12, by preflight for a v5e-64 at $1.20 a chip-hour: its 192 steps take 2 to 3 minutes, $2 to $4;
7.3 GiB of a chip's 15.75 (`whole`: 8.7).
"""

from ml_collections import ConfigDict

from configs import base
from configs.paper import alpaca_7b


def get_config(variant: str = "released") -> ConfigDict:
    config = alpaca_7b.get_config(variant)
    config.weights.folder = "checkpoints/Mistral-7B-Instruct-v0.1"
    config.model.preset = "mistral_7b_v01"
    config.vocabulary = base.mistral_vocabulary("v1")
    return config
