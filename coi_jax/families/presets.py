"""The published model families: what each does differently from a plain decoder or T5, and its sizes.

A config's model section may name a model, `dict(preset="mistral_7b_v01", dropout=0.0, …)`, or a family; the fields
beside it are those of the run, or replace the preset's own. Sources: the
`config.json` files published with the checkpoints.
"""

from typing import Any

from coi_jax.common.errors import UserError, nearest

Fields = dict[str, Any]

PLAIN_ROPE: Fields = dict(
    theta=10_000.0,
    everywhere=True,
    local_theta=0.0,
    scaling="none",
    factor=1.0,
    low_frequency=0.0,
    high_frequency=0.0,
    original_length=0,
)

# Touvron et al. 2023: what the other decoders are variations of.
LLAMA: Fields = dict(
    kind="decoder",
    activation="silu",
    norm_epsilon=1e-6,
    norm_offset=0,
    norm_placement="pre",
    qk_norm=False,
    qkv_bias=False,
    attention_softcap=0.0,
    logits_softcap=0.0,
    window=0,
    global_layer_interval=0,
    rope=PLAIN_ROPE,
    scaled_embedding=False,
    tied_embedding=False,
    vocabulary_size=32_000,
)
LLAMA2 = LLAMA | dict(norm_epsilon=1e-5)
LLAMA3 = LLAMA2 | dict(vocabulary_size=128_256, rope=PLAIN_ROPE | dict(theta=500_000.0))
LLAMA31_ROPE = PLAIN_ROPE | dict(
    theta=500_000.0, scaling="llama3", factor=8.0, low_frequency=1.0, high_frequency=4.0, original_length=8192
)
LLAMA31 = LLAMA3 | dict(rope=LLAMA31_ROPE)
LLAMA32 = LLAMA3 | dict(rope=LLAMA31_ROPE | dict(factor=32.0), tied_embedding=True)

# Jiang et al. 2023; from version 0.2 on without a window.
MISTRAL = LLAMA2 | dict(window=4096)
MISTRAL_V02 = LLAMA2 | dict(rope=PLAIN_ROPE | dict(theta=1_000_000.0))
MISTRAL_V03 = MISTRAL_V02 | dict(vocabulary_size=32_768)

QWEN_ROPE = PLAIN_ROPE | dict(theta=1_000_000.0)
QWEN25 = LLAMA | dict(qkv_bias=True, rope=QWEN_ROPE, vocabulary_size=151_936)
QWEN25_LARGE = QWEN25 | dict(vocabulary_size=152_064)
QWEN3 = LLAMA | dict(qk_norm=True, rope=QWEN_ROPE, vocabulary_size=151_936)

GEMMA: Fields = LLAMA | dict(
    activation="gelu", norm_offset=1, norm_placement="sandwich", scaled_embedding=True, tied_embedding=True
)
# Gemma team 2024: soft caps, every other layer local.
GEMMA2 = GEMMA | dict(
    attention_softcap=50.0, logits_softcap=30.0, window=4096, global_layer_interval=2, vocabulary_size=256_000
)
# Gemma team 2025: normed queries and keys in place of soft caps, one layer in six global with a base of its own.
GEMMA3_ROPE = PLAIN_ROPE | dict(theta=1_000_000.0, local_theta=10_000.0)
GEMMA3 = GEMMA | dict(
    qk_norm=True,
    window=1024,
    global_layer_interval=6,
    rope=GEMMA3_ROPE | dict(scaling="linear", factor=8.0),
    vocabulary_size=262_208,
)

# LG AI Research 2025: norms on what attention and MLP give; layers without a window are not turned.
EXAONE4_ROPE = LLAMA31_ROPE | dict(theta=1_000_000.0, factor=16.0)
EXAONE4_SMALL = LLAMA2 | dict(norm_placement="post", qk_norm=True, vocabulary_size=102_400)
EXAONE4 = EXAONE4_SMALL | dict(window=4096, global_layer_interval=4, rope=PLAIN_ROPE | dict(everywhere=False))

# Raffel et al. 2020. Version 1.1 (Shazeer 2020), FLAN-T5 (Chung et al. 2022) and mT5 (Xue et al. 2021) share a shape.
T5_BASE: Fields = dict(
    kind="t5", relative_buckets=32, relative_max_distance=128, norm_epsilon=1e-6, vocabulary_size=32_128
)
T5_V10 = T5_BASE | dict(mlp="relu", tied_embedding=True)
T5_V11 = T5_BASE | dict(mlp="gated_gelu", tied_embedding=False)
MT5 = T5_V11 | dict(vocabulary_size=250_112)


def _decoder(layers: int, model_dim: int, heads: int, kv_heads: int, head_dim: int, mlp_dim: int) -> Fields:
    return dict(
        layers=layers,
        model_dim=model_dim,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        attention_scale_dim=head_dim,
    )


def _t5(layers: int, model_dim: int, heads: int, head_dim: int, mlp_dim: int) -> Fields:
    return dict(
        layers=layers, decoder_layers=layers, model_dim=model_dim, heads=heads, head_dim=head_dim, mlp_dim=mlp_dim
    )


SEVEN_B = _decoder(32, 4096, 32, 32, 128, 11_008)
EIGHT_B = _decoder(32, 4096, 32, 8, 128, 14_336)
SEVENTY_B = _decoder(80, 8192, 64, 8, 128, 28_672)
T5_V11_SIZES = {
    "small": _t5(8, 512, 6, 64, 1024),
    "base": _t5(12, 768, 12, 64, 2048),
    "large": _t5(24, 1024, 16, 64, 2816),
    "xl": _t5(24, 2048, 32, 64, 5120),
    "xxl": _t5(24, 4096, 64, 64, 10_240),
}

# The families alone, for a model of one's own sizes: those and `vocabulary_size` are the config's to give.
FAMILIES: dict[str, Fields] = {
    "llama": LLAMA,
    "llama3": LLAMA31,
    "mistral": MISTRAL,
    "qwen25": QWEN25,
    "qwen3": QWEN3,
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "exaone4": EXAONE4,
    "t5_v10": T5_V10,
    "t5_v11": T5_V11,
}

PRESETS: dict[str, Fields] = FAMILIES | {
    "llama_7b": LLAMA | SEVEN_B,
    "llama_13b": LLAMA | _decoder(40, 5120, 40, 40, 128, 13_824),
    "alpaca_7b": LLAMA | SEVEN_B | dict(vocabulary_size=32_001),  # one more row, for padding
    "vicuna_7b_v13": LLAMA | SEVEN_B,
    "vicuna_7b_v15": LLAMA2 | SEVEN_B,
    "llama2_7b": LLAMA2 | SEVEN_B,
    "llama2_13b": LLAMA2 | _decoder(40, 5120, 40, 40, 128, 13_824),
    "llama2_70b": LLAMA2 | SEVENTY_B,
    "llama3_8b": LLAMA3 | EIGHT_B,
    "llama31_8b": LLAMA31 | EIGHT_B,
    "llama31_70b": LLAMA31 | SEVENTY_B,
    "llama32_1b": LLAMA32 | _decoder(16, 2048, 32, 8, 64, 8192),
    "llama32_3b": LLAMA32 | _decoder(28, 3072, 24, 8, 128, 8192),
    "mistral_7b_v01": MISTRAL | EIGHT_B,
    "mistral_7b_v02": MISTRAL_V02 | EIGHT_B,
    "mistral_7b_v03": MISTRAL_V03 | EIGHT_B,
    "qwen25_05b": QWEN25 | _decoder(24, 896, 14, 2, 64, 4864) | dict(tied_embedding=True),
    "qwen25_15b": QWEN25 | _decoder(28, 1536, 12, 2, 128, 8960) | dict(tied_embedding=True),
    "qwen25_3b": QWEN25 | _decoder(36, 2048, 16, 2, 128, 11_008) | dict(tied_embedding=True),
    "qwen25_7b": QWEN25_LARGE | _decoder(28, 3584, 28, 4, 128, 18_944),
    "qwen25_14b": QWEN25_LARGE | _decoder(48, 5120, 40, 8, 128, 13_824) | dict(norm_epsilon=1e-5),
    "qwen3_06b": QWEN3 | _decoder(28, 1024, 16, 8, 128, 3072) | dict(tied_embedding=True),
    "qwen3_17b": QWEN3 | _decoder(28, 2048, 16, 8, 128, 6144) | dict(tied_embedding=True),
    "qwen3_4b": QWEN3 | _decoder(36, 2560, 32, 8, 128, 9728) | dict(tied_embedding=True),
    "qwen3_8b": QWEN3 | _decoder(36, 4096, 32, 8, 128, 12_288),
    "qwen3_14b": QWEN3 | _decoder(40, 5120, 40, 8, 128, 17_408),
    "gemma2_2b": GEMMA2 | _decoder(26, 2304, 8, 4, 256, 9216),
    "gemma2_9b": GEMMA2 | _decoder(42, 3584, 16, 8, 256, 14_336),
    "gemma2_27b": GEMMA2 | _decoder(46, 4608, 32, 16, 128, 36_864) | dict(attention_scale_dim=144),
    "gemma3_1b": GEMMA3
    | _decoder(26, 1152, 4, 1, 256, 6912)
    | dict(window=512, rope=GEMMA3_ROPE, vocabulary_size=262_144),
    "gemma3_4b": GEMMA3 | _decoder(34, 2560, 8, 4, 256, 10_240),
    "gemma3_12b": GEMMA3 | _decoder(48, 3840, 16, 8, 256, 15_360),
    "gemma3_27b": GEMMA3 | _decoder(62, 5376, 32, 16, 128, 21_504) | dict(attention_scale_dim=168),
    "exaone4_1b": EXAONE4_SMALL | _decoder(30, 2048, 32, 8, 64, 4096) | dict(rope=EXAONE4_ROPE, tied_embedding=True),
    "exaone4_32b": EXAONE4 | _decoder(64, 5120, 40, 8, 128, 27_392) | dict(rope=EXAONE4_ROPE | dict(everywhere=False)),
    "t5_small": T5_V10 | _t5(6, 512, 8, 64, 2048),
    "t5_base": T5_V10 | _t5(12, 768, 12, 64, 3072),
    "t5_large": T5_V10 | _t5(24, 1024, 16, 64, 4096),
    "t5_3b": T5_V10 | _t5(24, 1024, 32, 128, 16_384),
    "t5_11b": T5_V10 | _t5(24, 1024, 128, 128, 65_536),
    **{f"t5_v11_{size}": T5_V11 | fields for size, fields in T5_V11_SIZES.items()},
    **{f"flan_t5_{size}": T5_V11 | fields for size, fields in T5_V11_SIZES.items()},
    **{f"mt5_{size}": MT5 | fields for size, fields in T5_V11_SIZES.items()},
}


def expand(preset: str, section: Fields) -> Fields:
    """The fields of a preset, with those of a model section in place of its own, `rope` field by field.

    Raises:
      UserError: there is no such preset.
    """
    if preset not in PRESETS:
        raise UserError("config.model.preset", preset, nearest(str(preset), list(PRESETS)))
    own, given = PRESETS[preset], {field: value for field, value in section.items() if field != "preset"}
    return own | {field: own[field] | value if isinstance(value, dict) else value for field, value in given.items()}
