"""OLMo 3 (OLMo team 2025): OLMo 2 with a window in three layers of four, whose rotary positions are never stretched."""

from coi_jax.families import decoder_common, exaone4, llama, olmo2
from coi_jax.families.decoder_common import sizes
from coi_jax.families.family import Family, Fields

YARN = dict(scaling="yarn", factor=8.0, low_frequency=1.0, high_frequency=32.0, original_length=8192)
ROPE = olmo2.OLMO2["rope"] | YARN | dict(local_theta=500_000.0)
OLMO3 = olmo2.OLMO2 | dict(window=4096, global_layer_interval=4, rope=ROPE, vocabulary_size=100_278)

DEFAULTS = olmo2.DEFAULTS | dict(sliding_window=4096, sliding_window_pattern=4, layer_types=None)


def read(values: Fields) -> Fields:
    """Return the fields of the model section that a config.json decides."""
    section = decoder_common.read(values)
    return section | {"rope": section["rope"] | {"local_theta": section["rope"]["theta"]}}


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    return llama.write(section) | decoder_common.write_windows(section, DEFAULTS["sliding_window"])


FAMILY = Family(
    model_type="olmo3",
    architecture="Olmo3ForCausalLM",
    switches=OLMO3,
    variants={"olmo3": OLMO3},
    models={
        "olmo3_7b": OLMO3 | sizes(32, 4096, 32, 32, 128, 11_008),
        "olmo3_32b": OLMO3 | sizes(64, 5120, 40, 8, 128, 27_648),
    },
    defaults=DEFAULTS,
    fixed=llama.FIXED,
    read=read,
    write=write,
    tensors=(exaone4.TENSORS,),
)
