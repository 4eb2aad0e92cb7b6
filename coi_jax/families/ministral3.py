"""Ministral 3 (Mistral AI 2025): a Mistral without a window, with YaRN and with queries that grow with their position.

It is published beside a vision tower, as Mistral 3 is; only the decoder is read. `transformers` has it from version 5.
"""

from coi_jax.common.errors import UserError
from coi_jax.families import decoder_common, llama
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields

ROPE = PLAIN_ROPE | dict(
    theta=1_000_000.0,
    scaling="yarn",
    factor=16.0,
    low_frequency=1.0,
    high_frequency=32.0,
    original_length=16_384,
    attention_factor=1.0,
    query_growth=0.1,
)
MINISTRAL3 = llama.LLAMA2 | dict(rope=ROPE, vocabulary_size=131_072)

GROWTH, ORIGINAL = "llama_4_scaling_beta", "original_max_position_embeddings"
DEFAULTS = decoder_common.DEFAULTS | dict(
    vocab_size=131_072,
    intermediate_size=14_336,
    num_hidden_layers=34,
    num_key_value_heads=8,
    head_dim=128,
    rms_norm_eps=1e-5,
    sliding_window=None,
)
ROPE_PARAMETERS: Fields = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    ORIGINAL: 16_384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    GROWTH: 0.1,
}


def read(values: Fields) -> Fields:
    """Return the fields of the model section that a config.json decides.

    Raises:
      UserError: the file does not say how queries grow.
    """
    name = "rope_scaling" if values["rope_scaling"] else "rope_parameters"
    given = values[name] or ROPE_PARAMETERS
    section = decoder_common.read(values | {"rope_scaling": None, "rope_parameters": None, name: given})
    if given.get(GROWTH) is None or given.get(ORIGINAL) is None:
        hint = f"needs {GROWTH} and {ORIGINAL}, by which queries grow; fetch the file again"
        raise UserError(f"config.json: {name}", given, hint)
    return section | {"rope": section["rope"] | {"query_growth": given[GROWTH], "original_length": given[ORIGINAL]}}


def write(section: Fields) -> Fields:
    """Return the fields of a config.json, as version 5 of `transformers` spells them."""
    values, rope = llama.write(section), section["rope"]
    theta, scaling = values.pop("rope_theta"), values.pop("rope_scaling") or {"rope_type": "default"}
    growth = {GROWTH: rope["query_growth"], ORIGINAL: max(rope["original_length"], 1)}
    return values | {
        "rope_parameters": scaling | {"rope_theta": theta} | growth,
        "sliding_window": section["window"] or None,
    }


FAMILY = Family(
    model_type="ministral3",
    architecture="Ministral3ForCausalLM",
    switches=MINISTRAL3,
    variants={"ministral3": MINISTRAL3},
    models={
        "ministral3_3b": MINISTRAL3 | sizes(26, 3072, 32, 8, 128, 9216) | dict(tied_embedding=True),
        "ministral3_8b": MINISTRAL3 | sizes(34, 4096, 32, 8, 128, 14_336),
        "ministral3_14b": MINISTRAL3 | sizes(40, 5120, 32, 8, 128, 16_384) | dict(rope=ROPE | dict(theta=1e9)),
    },
    defaults=DEFAULTS,
    fixed=llama.FIXED,
    read=read,
    write=write,
    tensors=(llama.TENSORS,),
)
