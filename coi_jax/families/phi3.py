"""Phi-3 and Phi-4 (Abdin et al. 2024): a Llama in whose checkpoints the projections of one input are one tensor.

Those of long texts, and Phi-4-mini, stretch positions by LongRoPE, which is not computed here. A run is published
as a Llama, or as a Mistral where it has a window: they compute the same.
"""

from coi_jax.families import decoder_common, llama, mistral
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields

PHI3 = llama.LLAMA2 | dict(vocabulary_size=32_064, window=2047)
PHI4 = llama.LLAMA2 | dict(vocabulary_size=100_352, rope=PLAIN_ROPE | dict(theta=250_000.0))

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
)
ATTENTION, MLP = "model.layers.{}.self_attn.", "model.layers.{}.mlp."


def write(section: Fields) -> Fields:
    """Return the fields of a config.json, of the family that computes the same from tensors of their own."""
    family = mistral.FAMILY if section["window"] else llama.FAMILY
    return {"model_type": family.model_type, "architectures": [family.architecture]} | family.write(section)


FAMILY = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    switches=PHI3,
    variants={"phi3": PHI3},
    models={
        "phi3_mini_4k": PHI3 | sizes(32, 3072, 32, 32, 96, 8192),
        "phi4_14b": PHI4 | sizes(40, 5120, 40, 10, 128, 17_920),
    },
    defaults=DEFAULTS,
    fixed=llama.FIXED,
    read=decoder_common.read,
    write=write,
    tensors=(llama.TENSORS,),
    fused_keys=(
        (f"{ATTENTION}qkv_proj.weight", tuple(f"{ATTENTION}{name}_proj.weight" for name in "qkv")),
        (f"{MLP}gate_up_proj.weight", tuple(f"{MLP}{name}_proj.weight" for name in ("gate", "up"))),
    ),
)
