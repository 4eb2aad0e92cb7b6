"""EXAONE 4 (LG AI Research 2025): norms on the outputs of attention and MLP, and on queries and keys.

In the larger model one layer in four has no window, and those layers have no rotary positions.
"""

from coi_jax.families import decoder_common, llama
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields, TensorNames

ROPE = llama.LLAMA31_ROPE | dict(theta=1_000_000.0, factor=16.0)
SMALL = llama.LLAMA2 | dict(norm_placement="post", qk_norm=True, vocabulary_size=102_400)
EXAONE4 = SMALL | dict(window=4096, global_layer_interval=4, rope=PLAIN_ROPE | dict(everywhere=False))

DEFAULTS = decoder_common.DEFAULTS | dict(
    vocab_size=102_400,
    intermediate_size=16_384,
    num_key_value_heads=32,
    rms_norm_eps=1e-5,
    sliding_window=4096,
    sliding_window_pattern=4,
    layer_types=None,
)
PRE_NORMS = ("layers.attention_norm.scale", "layers.mlp_norm.scale")
TENSORS = TensorNames(
    switches=dict(kind="decoder", norm_placement="post"),
    keys={path: key for path, key in llama.TENSORS.keys.items() if path not in PRE_NORMS}
    | {
        "layers.attention_post_norm.scale": "model.layers.{}.post_attention_layernorm.weight",
        "layers.mlp_post_norm.scale": "model.layers.{}.post_feedforward_layernorm.weight",
    },
)


def read(values: Fields) -> Fields:
    """Return the fields of the model section that a config.json decides.

    Layers without a window have rotary positions only where no layer has a window.
    """
    has_windows = values["sliding_window"] is not None
    if not has_windows:
        values = values | {"sliding_window_pattern": None}  # which the class does not read then
    section = decoder_common.read(values)
    return section | {"rope": section["rope"] | {"everywhere": not has_windows}}


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    return llama.write(section) | {
        "layer_types": decoder_common.layer_types(section),
        "sliding_window": section["window"],
        "sliding_window_pattern": section["global_layer_interval"] or 0,
    }


FAMILY = Family(
    model_type="exaone4",
    architecture="Exaone4ForCausalLM",
    switches=EXAONE4,
    variants={"exaone4": EXAONE4},
    models={
        "exaone4_1b": SMALL | sizes(30, 2048, 32, 8, 64, 4096) | dict(rope=ROPE, tied_embedding=True),
        "exaone4_32b": EXAONE4 | sizes(64, 5120, 40, 8, 128, 27_392) | dict(rope=ROPE | dict(everywhere=False)),
    },
    defaults=DEFAULTS,
    fixed=llama.FIXED,
    read=read,
    write=write,
    tensors=(TENSORS,),
)
