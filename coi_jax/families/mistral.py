"""Mistral (Jiang et al. 2023): a Llama with a sliding window in all layers; from version 0.2 on without the window.

Mistral 3 holds the same decoder beside a vision tower; only the decoder is read.
"""

from coi_jax.families import decoder_common, llama
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields

V01 = llama.LLAMA2 | dict(window=4096)
V02 = llama.LLAMA2 | dict(rope=PLAIN_ROPE | dict(theta=1_000_000.0))
V03 = V02 | dict(vocabulary_size=32_768)

SIZE_7B = sizes(32, 4096, 32, 8, 128, 14_336)


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    return llama.write(section) | {"sliding_window": section["window"] or None}


FAMILY = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    switches=V01,
    variants={"mistral": V01},
    models={"mistral_7b_v01": V01 | SIZE_7B, "mistral_7b_v02": V02 | SIZE_7B, "mistral_7b_v03": V03 | SIZE_7B},
    defaults=decoder_common.DEFAULTS | dict(intermediate_size=14_336, num_key_value_heads=8, sliding_window=4096),
    fixed=llama.FIXED,
    read=decoder_common.read,
    write=write,
    tensors=(llama.TENSORS,),
    nested_type="mistral3",
    key_prefixes=decoder_common.VISION_PREFIXES,
    unused_keys=decoder_common.VISION_KEYS,
)
