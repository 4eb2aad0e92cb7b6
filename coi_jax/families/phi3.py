"""Phi-3 and Phi-4 (Abdin et al. 2024): a Llama in whose checkpoints the projections of one input are one tensor.

Those of long texts stretch positions by LongRoPE (Ding et al. 2024), Phi-4-mini those of three quarters of a head.
"""

from coi_jax.families import decoder_common, llama
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields

PHI3 = llama.LLAMA2 | dict(vocabulary_size=32_064, window=2047)
PHI4 = llama.LLAMA2 | dict(vocabulary_size=100_352, rope=PLAIN_ROPE | dict(theta=250_000.0))
PHI4_MINI_LONG_FACTORS = (
    *(1.0, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649),
    *(2.446418898, 2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533),
    *(5.984965424, 6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651),
    *(14.64173252, 16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03),
    *(32.1, 32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7),
    *(32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77),
)
PHI4_MINI_ROPE = PLAIN_ROPE | dict(
    rotated_share=0.75,
    scaling="longrope",
    factor=32.0,
    original_length=4096,
    short_factors=(1.0,) * len(PHI4_MINI_LONG_FACTORS),
    long_factors=PHI4_MINI_LONG_FACTORS,
)
PHI4_MINI = PHI3 | dict(vocabulary_size=200_064, window=262_144, rope=PHI4_MINI_ROPE, tied_embedding=True)

DEFAULTS = decoder_common.DEFAULTS | dict(
    vocab_size=32_064,
    hidden_size=3072,
    intermediate_size=8192,
    num_key_value_heads=None,
    rms_norm_eps=1e-5,
    sliding_window=None,
    resid_pdrop=0.0,  # in training alone, as the next
    embd_pdrop=0.0,
    original_max_position_embeddings=4096,  # of LongRoPE
    partial_rotary_factor=1.0,
)
FIXED = {name: value for name, value in llama.FIXED.items() if name != "partial_rotary_factor"} | dict(
    lm_head_bias=False,
    full_attn_mod=1,
    interpolate_factor=1,
)
ATTENTION, MLP = "model.layers.{}.self_attn.", "model.layers.{}.mlp."


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    rope = section["rope"]
    values = llama.write(section) | {
        "sliding_window": section["window"],
        "partial_rotary_factor": rope["rotated_share"],
    }
    if rope["scaling"] != "longrope":
        return values
    factors = {"short_factor": list(rope["short_factors"]), "long_factor": list(rope["long_factors"])}
    return values | {
        "rope_scaling": {"type": "longrope"} | factors,  # transformers takes no other field besides
        "original_max_position_embeddings": rope["original_length"],
        "max_position_embeddings": round(rope["factor"] * rope["original_length"]),
    }


FAMILY = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    switches=PHI3,
    variants={"phi3": PHI3},
    models={
        "phi3_mini_4k": PHI3 | sizes(32, 3072, 32, 32, 96, 8192),
        "phi4_14b": PHI4 | sizes(40, 5120, 40, 10, 128, 17_920),
        "phi4_mini": PHI4_MINI | sizes(32, 3072, 24, 8, 128, 8192),
    },
    defaults=DEFAULTS,
    fixed=FIXED,
    read=decoder_common.read,
    write=write,
    tensors=(llama.TENSORS,),
    fused_keys=(
        (f"{ATTENTION}qkv_proj.weight", tuple(f"{ATTENTION}{name}_proj.weight" for name in "qkv")),
        (f"{MLP}gate_up_proj.weight", tuple(f"{MLP}{name}_proj.weight" for name in ("gate", "up"))),
    ),
)
