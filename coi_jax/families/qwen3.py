"""Qwen 3 (Qwen team 2025): Qwen 2.5 with normalized queries and keys in place of their biases."""

from coi_jax.families import decoder_common, llama, qwen25
from coi_jax.families.decoder_common import sizes
from coi_jax.families.family import Family

QWEN3 = llama.LLAMA1 | dict(qk_norm=True, rope=qwen25.ROPE, vocabulary_size=151_936)
TIED = QWEN3 | dict(tied_embedding=True)

FAMILY = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    switches=QWEN3,
    variants={"qwen3": QWEN3},
    models={
        "qwen3_06b": TIED | sizes(28, 1024, 16, 8, 128, 3072),
        "qwen3_17b": TIED | sizes(28, 2048, 16, 8, 128, 6144),
        "qwen3_4b": TIED | sizes(36, 2560, 32, 8, 128, 9728),
        "qwen3_8b": QWEN3 | sizes(36, 4096, 32, 8, 128, 12_288),
        "qwen3_14b": QWEN3 | sizes(40, 5120, 40, 8, 128, 17_408),
    },
    defaults=qwen25.DEFAULTS | dict(head_dim=128),
    fixed=llama.FIXED,
    read=decoder_common.read,
    write=qwen25.write,
    tensors=(llama.TENSORS,),
)
