"""Gemma 3 (Gemma team 2025): Gemma 2 with normalized queries and keys in place of soft caps.

One layer in six is global, and global layers have a rotary base of their own. Models with a vision tower hold the same
decoder beside it; only the decoder is read.
"""

from coi_jax.families import decoder_common, gemma2
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields

ROPE = PLAIN_ROPE | dict(theta=1_000_000.0, local_theta=10_000.0)
GEMMA3 = gemma2.GEMMA | dict(
    qk_norm=True,
    window=1024,
    global_layer_interval=6,
    rope=ROPE | dict(scaling="linear", factor=8.0),
    vocabulary_size=262_208,
)
TEXT_ONLY = GEMMA3 | dict(window=512, rope=ROPE, vocabulary_size=262_144)

DEFAULTS = gemma2.DEFAULTS | dict(
    vocab_size=262_208,
    rope_theta=1_000_000.0,
    rope_local_base_freq=10_000.0,
    sliding_window_pattern=6,
    attn_logit_softcapping=None,
    final_logit_softcapping=None,
)


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    return gemma2.write(section) | {
        "rope_local_base_freq": section["rope"]["local_theta"] or 0.0,
        "sliding_window_pattern": section["global_layer_interval"] or 0,
    }


FAMILY = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    switches=GEMMA3,
    variants={"gemma3": GEMMA3},
    models={
        "gemma3_270m": TEXT_ONLY | sizes(18, 640, 4, 1, 256, 2048),
        "gemma3_1b": TEXT_ONLY | sizes(26, 1152, 4, 1, 256, 6912),
        "gemma3_4b": GEMMA3 | sizes(34, 2560, 8, 4, 256, 10_240),
        "gemma3_12b": GEMMA3 | sizes(48, 3840, 16, 8, 256, 15_360),
        "gemma3_27b": GEMMA3 | sizes(62, 5376, 32, 16, 128, 21_504) | dict(attention_scale_dim=168),
    },
    defaults=DEFAULTS,
    fixed=gemma2.FIXED,
    read=gemma2.read,
    write=write,
    tensors=(gemma2.TENSORS,),
    nested_type="gemma3",
    key_prefixes=decoder_common.VISION_PREFIXES,
    unused_keys=decoder_common.VISION_KEYS,
)
