"""A published model tuned on chains by the paper's recipe. Its folder says the network, the tokenizer and the prompts.

What differs from the recipe: rows of 2048 positions hold several examples, packed, and what is longer is left out.

Command: `python -m coi_jax.train --config configs/fine_tune.py --config.weights.folder=FOLDER --workdir runs/coi12`
LoRA of rank 16 on a bfloat16 base: `--config configs/fine_tune.py:lora`
As it is: `python -m coi_jax.evaluate --config configs/fine_tune.py --config.weights.folder=FOLDER --config.arm=base
  --workdir runs/base`
On a CPU add `--config.model.dtype=float32`.
To expect: what the paper reports for Mistral-7B, ROUGE-L 70.8 on coi2_test; smaller models stay below.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "full") -> ConfigDict:
    base.check_variant(variant, "full", "lora")
    config = base.fine_tuning(weights=None)
    if variant == "lora":
        config.lora = base.lora(rank=16)
        config.optimizer.learning_rate = 2e-4
    return config
