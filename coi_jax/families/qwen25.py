"""Qwen 2.5: a Llama whose queries, keys and values have a bias."""

from coi_jax.families import decoder_common, llama
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields

ROPE = PLAIN_ROPE | dict(theta=1_000_000.0)
QWEN25 = llama.LLAMA1 | dict(qkv_bias=True, rope=ROPE, vocabulary_size=151_936)
TIED = QWEN25 | dict(tied_embedding=True)
LARGE = QWEN25 | dict(vocabulary_size=152_064)

DEFAULTS = decoder_common.DEFAULTS | dict(
    vocab_size=151_936,
    intermediate_size=22_016,
    num_key_value_heads=32,
    use_sliding_window=False,
    sliding_window=4096,
    max_window_layers=28,
    layer_types=None,
)


def write(section: Fields) -> Fields:
    """Return the fields of a config.json; a window, where there is one, begins at layer `max_window_layers`."""
    window = section["window"]
    values = llama.write(section) | {"layer_types": decoder_common.layer_types(section)}
    if window:
        values["sliding_window"] = window
    return values | {"use_sliding_window": bool(window), "max_window_layers": 0 if window else section["layers"]}


FAMILY = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    switches=QWEN25,
    variants={"qwen25": QWEN25},
    models={
        "qwen25_05b": TIED | sizes(24, 896, 14, 2, 64, 4864),
        "qwen25_15b": TIED | sizes(28, 1536, 12, 2, 128, 8960),
        "qwen25_3b": TIED | sizes(36, 2048, 16, 2, 128, 11_008),
        "qwen25_7b": LARGE | sizes(28, 3584, 28, 4, 128, 18_944),
        "qwen25_14b": LARGE | sizes(48, 5120, 40, 8, 128, 13_824) | dict(norm_epsilon=1e-5),
    },
    defaults=DEFAULTS,
    fixed=llama.FIXED,
    read=decoder_common.read,
    write=write,
    tensors=(llama.TENSORS,),
)
