"""A small twin of the recipes of this folder, that two CPU cores run in minutes: it shows that all of them work.

What differs: a decoder of two layers instead of a published one of 7B, tuned for 20 steps of 64 examples at a higher
rate, and 20 chains of each test set, the same ones for all models. Its scores say nothing of the paper's.

`base` trains the model that all twins begin from, on single instructions; `twin` tunes it.
Command: `python -m coi_jax.train --config configs/paper/small.py:base --workdir runs/paper_small_base`, then
`python -m launch.sweep --sweep configs/sweeps/paper_small.py --backend local`.
Two CPU cores: a quarter of an hour; free. To expect: ROUGE-L no higher than that of the labels alone, and tables and
figures that are filled.
"""

from ml_collections import ConfigDict

from configs import base

NETWORK = dict(
    preset="llama",
    layers=2,
    model_dim=64,
    heads=2,
    kv_heads=2,
    head_dim=32,
    attention_scale_dim=32,
    mlp_dim=176,
    vocabulary_size=None,
)


def get_config(variant: str = "twin") -> ConfigDict:
    base.check_variant(variant, "base", "twin")
    config = base.from_scratch(**NETWORK)
    config.data.batch, config.data.length, config.data.overlong = base.examples(64), 512, "cut_targets"
    config.train = base.train(base.steps(20), checkpoint_every=20)
    config.evaluation.tests = ("coi2_test", "coi3_test", "bbh")
    config.evaluation.examples, config.evaluation.max_new_tokens, config.evaluation.bootstrap = 20, 64, 200
    if variant == "base":
        config.arm = "coi1"
    else:
        config.weights.folder = "runs/paper_small_base"
    return config
