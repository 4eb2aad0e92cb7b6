"""Gemma 2 (Gemma team 2024): norms before and after, soft caps, and a window in every other layer."""

from coi_jax.families import decoder_common, llama
from coi_jax.families.decoder_common import sizes
from coi_jax.families.family import Family, Fields, TensorNames

GEMMA = llama.LLAMA1 | dict(
    activation="gelu", norm_offset=1, norm_placement="sandwich", scaled_embedding=True, tied_embedding=True
)
GEMMA2 = GEMMA | dict(
    attention_softcap=50.0, logits_softcap=30.0, window=4096, global_layer_interval=2, vocabulary_size=256_000
)

DEFAULTS = decoder_common.DEFAULTS | dict(
    vocab_size=256_000,
    hidden_size=2304,
    intermediate_size=9216,
    num_hidden_layers=26,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=256,
    query_pre_attn_scalar=256,
    sliding_window=4096,
    layer_types=None,
    sliding_window_pattern=2,
    tie_word_embeddings=True,
    attn_logit_softcapping=50.0,
    final_logit_softcapping=30.0,
)
ACTIVATION = dict(hidden_activation="gelu_pytorch_tanh")
FIXED = decoder_common.FIXED | ACTIVATION | dict(use_bidirectional_attention=False)
RENAMED = {
    "query_pre_attn_scalar": "attention_scale_dim",
    "attn_logit_softcapping": "attention_softcap",
    "final_logit_softcapping": "logits_softcap",
}
# Llama's name for the norm before the MLP is, in Gemma, that of the norm after attention.
TENSORS = TensorNames(
    switches=dict(kind="decoder", norm_placement="sandwich"),
    keys=llama.TENSORS.keys
    | {
        "layers.attention_post_norm.scale": "model.layers.{}.post_attention_layernorm.weight",
        "layers.mlp_norm.scale": "model.layers.{}.pre_feedforward_layernorm.weight",
        "layers.mlp_post_norm.scale": "model.layers.{}.post_feedforward_layernorm.weight",
    },
)


def read(values: Fields) -> Fields:
    """Return the fields of the model section that a config.json decides; a soft cap may be null."""
    return decoder_common.read(values) | {ours: values[theirs] or None for theirs, ours in RENAMED.items()}


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    values = decoder_common.write(section) | ACTIVATION
    values |= {theirs: section[ours] for theirs, ours in RENAMED.items()}
    window = section["window"] or DEFAULTS["sliding_window"]  # may not be null; `layer_types` says that none has it
    return values | {"layer_types": decoder_common.layer_types(section), "sliding_window": window}


FAMILY = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    switches=GEMMA2,
    variants={"gemma2": GEMMA2},
    models={
        "gemma2_2b": GEMMA2 | sizes(26, 2304, 8, 4, 256, 9216),
        "gemma2_9b": GEMMA2 | sizes(42, 3584, 16, 8, 256, 14_336),
        "gemma2_27b": GEMMA2 | sizes(46, 4608, 32, 16, 128, 36_864) | dict(attention_scale_dim=144),
    },
    defaults=DEFAULTS,
    fixed=FIXED,
    read=read,
    write=write,
    tensors=(TENSORS,),
)
