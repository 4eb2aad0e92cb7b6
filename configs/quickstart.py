"""The quickstart: a decoder of 1M parameters learns procedural chains on a CPU.

Command: `make quickstart`, or for one arm
`python -m coi_jax.train --config configs/quickstart.py --workdir runs/quickstart/coi12 --config.arm=coi12`
Two CPU cores: 8 minutes for three arms, installation included; free.
Adapters on a tuned run: `--config configs/quickstart.py:lora --config.weights.folder=runs/quickstart/coi12`.
To expect: content ROUGE-L 97 ± 3 at length 2 (coi12), 79 ± 8 at length 3 (coi123), over three seeds.
"""

from ml_collections import ConfigDict

from configs import base

# An EXAONE-4-like network: every second layer sees all positions and knows no order, so that a longer prompt looks
# like those it was tuned on; the others see 16 positions and know their order.
NETWORK = dict(
    preset="exaone4",
    layers=4,
    model_dim=128,
    heads=4,
    kv_heads=4,
    head_dim=32,
    attention_scale_dim=32,
    mlp_dim=352,
    window=16,
    global_layer_interval=2,
    vocabulary_size=None,
)


def get_config(variant: str = "full") -> ConfigDict:
    base.check_variant(variant, "full", "lora")
    config = base.from_scratch(**NETWORK)
    config.arm = "coi123"
    config.data = base.data(template="plain", batch=base.full_rows(16), length=128)  # a chain of 3 steps fits
    config.data.folder = "data/quickstart"
    config.vocabulary = base.trained_vocabulary(900)
    config.optimizer.update(learning_rate=3e-3, warmup_ratio=0.05, weight_decay=0.01)
    config.optimizer.options.b2 = 0.98
    config.train = base.train(base.steps(1000), checkpoint_every=500)
    config.train.log_every = 50
    config.evaluation.tests = tuple(f"proc{length}_test" for length in range(1, 7))
    config.evaluation.max_new_tokens = 192
    if variant == "lora":
        config.lora = base.lora(rank=8)
    return config
