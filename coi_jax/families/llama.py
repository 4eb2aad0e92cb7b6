"""Llama 1 to 3.2 (Touvron et al. 2023, Grattafiori et al. 2024), SmolLM2: the decoder that others are variations of."""

from coi_jax.families import decoder_common
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields, TensorNames

LLAMA1: Fields = dict(
    kind="decoder",
    activation="silu",
    norm_epsilon=1e-6,
    norm_offset=0,
    norm_placement="pre",
    qk_norm=False,
    qkv_bias=False,
    attention_softcap=None,
    logits_softcap=None,
    window=None,
    global_layer_interval=None,
    first_global_layer=None,
    rope=PLAIN_ROPE,
    scaled_embedding=False,
    tied_embedding=False,
    vocabulary_size=32_000,
)
LLAMA2 = LLAMA1 | dict(norm_epsilon=1e-5)
LLAMA3 = LLAMA2 | dict(vocabulary_size=128_256, rope=PLAIN_ROPE | dict(theta=500_000.0))
LLAMA31_ROPE = PLAIN_ROPE | dict(
    theta=500_000.0, scaling="llama3", factor=8.0, low_frequency=1.0, high_frequency=4.0, original_length=8192
)
LLAMA31 = LLAMA3 | dict(rope=LLAMA31_ROPE)
LLAMA32 = LLAMA3 | dict(rope=LLAMA31_ROPE | dict(factor=32.0), tied_embedding=True)
SMOLLM2 = LLAMA2 | dict(vocabulary_size=49_152, rope=PLAIN_ROPE | dict(theta=100_000.0), tied_embedding=True)

SIZE_7B = sizes(32, 4096, 32, 32, 128, 11_008)
SIZE_8B = sizes(32, 4096, 32, 8, 128, 14_336)
SIZE_13B = sizes(40, 5120, 40, 40, 128, 13_824)
SIZE_70B = sizes(80, 8192, 64, 8, 128, 28_672)
MODELS = {
    "llama_7b": LLAMA1 | SIZE_7B,
    "llama_13b": LLAMA1 | SIZE_13B,
    "alpaca_7b": LLAMA1 | SIZE_7B | dict(vocabulary_size=32_001),  # one more row, for padding
    "vicuna_7b_v13": LLAMA1 | SIZE_7B,
    "vicuna_7b_v15": LLAMA2 | SIZE_7B,
    "llama2_7b": LLAMA2 | SIZE_7B,
    "llama2_13b": LLAMA2 | SIZE_13B,
    "llama2_70b": LLAMA2 | SIZE_70B,
    "llama3_8b": LLAMA3 | SIZE_8B,
    "llama31_8b": LLAMA31 | SIZE_8B,
    "llama31_70b": LLAMA31 | SIZE_70B,
    "smollm2_135m": SMOLLM2 | sizes(30, 576, 9, 3, 64, 1536),
    "smollm2_360m": SMOLLM2 | sizes(32, 960, 15, 5, 64, 2560),
    "smollm2_1_7b": SMOLLM2 | sizes(24, 2048, 32, 32, 64, 8192) | dict(rope=PLAIN_ROPE | dict(theta=130_000.0)),
    "llama32_1b": LLAMA32 | sizes(16, 2048, 32, 8, 64, 8192),
    "llama32_3b": LLAMA32 | sizes(28, 3072, 24, 8, 128, 8192),
}

DEFAULTS = decoder_common.DEFAULTS | dict(intermediate_size=11_008, num_key_value_heads=None)
FIXED = decoder_common.FIXED | dict(hidden_act="silu")
TENSORS = TensorNames(
    switches=dict(kind="decoder", norm_placement="pre"),
    keys={
        "embedding.table": "model.embed_tokens.weight",
        "layers.attention_norm.scale": "model.layers.{}.input_layernorm.weight",
        "layers.attention.query.kernel": "model.layers.{}.self_attn.q_proj.weight",
        "layers.attention.query.bias": "model.layers.{}.self_attn.q_proj.bias",
        "layers.attention.key.kernel": "model.layers.{}.self_attn.k_proj.weight",
        "layers.attention.key.bias": "model.layers.{}.self_attn.k_proj.bias",
        "layers.attention.value.kernel": "model.layers.{}.self_attn.v_proj.weight",
        "layers.attention.value.bias": "model.layers.{}.self_attn.v_proj.bias",
        "layers.attention.output.kernel": "model.layers.{}.self_attn.o_proj.weight",
        "layers.query_norm.scale": "model.layers.{}.self_attn.q_norm.weight",
        "layers.key_norm.scale": "model.layers.{}.self_attn.k_norm.weight",
        "layers.mlp_norm.scale": "model.layers.{}.post_attention_layernorm.weight",
        "layers.mlp.gate.kernel": "model.layers.{}.mlp.gate_proj.weight",
        "layers.mlp.up.kernel": "model.layers.{}.mlp.up_proj.weight",
        "layers.mlp.down.kernel": "model.layers.{}.mlp.down_proj.weight",
        "final_norm.scale": "model.norm.weight",
        "head.kernel": "lm_head.weight",
    },
)


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    return decoder_common.write(section) | {"hidden_act": "silu"}


FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    switches=LLAMA1,
    variants={"llama": LLAMA1, "llama3": LLAMA31},
    models=MODELS,
    defaults=DEFAULTS,
    fixed=FIXED,
    read=decoder_common.read,
    write=write,
    tensors=(TENSORS,),
    unused_keys=r".*\.rotary_emb\.inv_freq",  # follows from the config
)
