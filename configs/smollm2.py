"""SmolLM2-135M-Instruct tuned on the paper's release, in full or by LoRA, in steps that two CPU cores can take.

What differs from the paper's recipe: 40 steps of four rows, some 16 examples each, instead of 3 epochs of steps of
256, and rates for so few steps. Examples longer than 1024 positions are left out and counted. 200 chains of each test
set are scored, the same ones for all models.

Command: `make smollm2` makes the folder of the weights and runs `configs/sweeps/smollm2.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "full") -> ConfigDict:
    base.check_variant(variant, "full", "lora")
    config = base.fine_tuning(weights="checkpoints/SmolLM2-135M-Instruct")
    config.data.length, config.data.batch = 1024, base.full_rows(4)
    config.model.dtype, config.model.remat = "float32", "none"
    config.optimizer.learning_rate = 1e-4
    config.train = base.train(base.steps(40), checkpoint_every=10)
    config.train.microbatches = 2  # 4 GB less of memory
    config.train.log_every = 1
    config.evaluation.max_new_tokens, config.evaluation.batch = 256, 64
    config.evaluation.examples = 200
    if variant == "lora":
        config.lora = base.lora(rank=16)
        config.lora.base_dtype = "float32"
        config.optimizer.learning_rate = 1e-3
    return config
