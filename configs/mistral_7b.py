"""Mistral-7B-Instruct tuned on chains by the paper's recipe, on a slice of TPUs.

What differs from the recipe: its rows held one example of at most 512 positions, and longer chains lost their final
answer; here rows of 2048 positions hold several, packed, and what is longer than a row is left out and counted.

Command: `python -m coi_jax.train --config configs/mistral_7b.py --workdir gs://bucket/runs/coi12`
LoRA of rank 16 on a bfloat16 base: `--config configs/mistral_7b.py:lora`
Does it fit, how fast, for how much: `python -m launch.preflight --config configs/mistral_7b.py --topology v5e:4x4`
Paper: ROUGE-L 70.8 on coi2_test, 59.8 on coi3_test (coi12).

Other models: `configs/fine_tune.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "full") -> ConfigDict:
    base.check_variant(variant, "full", "lora")
    config = base.fine_tuning(weights="checkpoints/Mistral-7B-Instruct-v0.1")
    config.model.preset = "mistral_7b_v01"  # so that preflight needs no folder
    config.data.template = "alpaca"
    config.vocabulary = base.mistral_vocabulary("v1")
    if variant == "lora":
        config.lora = base.lora(rank=16)
        config.optimizer.learning_rate = 2e-4
    return config
