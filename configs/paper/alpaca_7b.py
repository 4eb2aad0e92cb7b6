"""Alpaca-7B tuned on chains: the paper's table 4, columns Alpaca-7B.

`released` follows the released trainer to the letter: 3 epochs of 256 examples a step, 2e-5, linear decay after 3% of
warm-up, no weight decay, bfloat16, and at most 512 positions, to which an estimated 14 to 17% of CoI_2 and 19 to 23% of
CoI_3 are cut, their final answers first. `whole` is the same with rows of 2048 positions, which cut nothing.

Command: `python -m launch.sweep --sweep configs/sweeps/paper_alpaca_7b.py --backend local`, or one arm:
`python -m coi_jax.train --config configs/paper/alpaca_7b.py:whole --workdir gs://bucket/runs/coi12`
Paper: ROUGE-L on coi2_test / coi3_test / bbh: base 25.0 / 21.0 / 14.4, coi1 32.3 / 21.8 / 28.7, coi2 62.0 / 48.2 /
12.1, coi12 67.5 / 50.2 / 28.8, coi123 67.1 / 67.5 / 27.6.
The multilingual experiment of its table 6: evaluate coi12 with `--tasks wikilingua_en_fr,wikilingua_es_en`.

Cost of coi12, by preflight for a v5e-64 at $1.20 a chip-hour: its 192 steps take 2 to 3 minutes, $2 to $4;
7.3 GiB of a chip's 15.75 (`whole`: 8.7).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "released") -> ConfigDict:
    base.check_variant(variant, "released", "whole")
    config = base.fine_tuning(weights="checkpoints/alpaca-7b")
    config.model.preset = "llama_7b"  # so that preflight needs no folder
    config.data.template, config.vocabulary = "alpaca", base.tokenizer("checkpoints/alpaca-7b")
    config.evaluation.tests = ("coi2_test", "coi3_test", "bbh")
    if variant == "released":
        config.data.length, config.data.overlong = 512, "cut_targets"
    return config
