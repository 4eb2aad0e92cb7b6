"""Ministral (Mistral AI 2024): a Mistral in which one layer in four has no window, beginning with the first.

Ministral-8B of October 2024 is published as a Mistral, whose class has the window in all layers.
"""

from coi_jax.families import decoder_common, llama, mistral
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields

MINISTRAL = llama.LLAMA2 | dict(
    window=32_768,
    global_layer_interval=4,
    first_global_layer=1,
    rope=PLAIN_ROPE | dict(theta=100_000_000.0),
    vocabulary_size=131_072,
)

DEFAULTS = mistral.FAMILY.defaults | dict(layer_types=None)


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    return llama.write(section) | decoder_common.write_windows(section, DEFAULTS["sliding_window"])


FAMILY = Family(
    model_type="ministral",
    architecture="MinistralForCausalLM",
    switches=MINISTRAL,
    variants={"ministral": MINISTRAL},
    models={"ministral_8b": MINISTRAL | sizes(36, 4096, 32, 8, 128, 12_288)},
    defaults=DEFAULTS,
    fixed=llama.FIXED,
    read=decoder_common.read,
    write=write,
    tensors=(llama.TENSORS,),
)
