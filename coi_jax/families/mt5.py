"""mT5 (Xue et al. 2021): T5 1.1 with a vocabulary of 101 languages."""

from dataclasses import replace

from coi_jax.families import t5

MT5 = t5.V11 | dict(vocabulary_size=250_112)

FAMILY = replace(
    t5.FAMILY,
    model_type="mt5",
    architecture="MT5ForConditionalGeneration",
    switches=MT5,
    variants={},
    models={f"mt5_{name}": MT5 | size for name, size in t5.V11_SIZES.items()},
    defaults=t5.DEFAULTS
    | dict(
        vocab_size=250_112,
        d_ff=1024,
        num_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
)
