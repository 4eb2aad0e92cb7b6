"""OLMo 2 (OLMo team 2024): norms on the outputs of attention and MLP, and on queries and keys over all heads."""

from coi_jax.families import decoder_common, exaone4, llama
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family

OLMO2 = llama.LLAMA1 | dict(
    norm_placement="post", qk_norm="all_heads", rope=PLAIN_ROPE | dict(theta=500_000.0), vocabulary_size=100_352
)

DEFAULTS = decoder_common.DEFAULTS | dict(
    vocab_size=50_304,
    intermediate_size=11_008,
    num_key_value_heads=None,
    rms_norm_eps=1e-5,
)

FAMILY = Family(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    switches=OLMO2,
    variants={"olmo2": OLMO2},
    models={
        "olmo2_1b": OLMO2 | sizes(16, 2048, 16, 16, 128, 8192),
        "olmo2_7b": OLMO2 | sizes(32, 4096, 32, 32, 128, 11_008),
        "olmo2_13b": OLMO2 | sizes(40, 5120, 40, 40, 128, 13_824),
        "olmo2_32b": OLMO2 | sizes(64, 5120, 40, 8, 128, 27_648),
    },
    defaults=DEFAULTS,
    fixed=llama.FIXED,
    read=decoder_common.read,
    write=llama.write,
    tensors=(exaone4.TENSORS,),
)
