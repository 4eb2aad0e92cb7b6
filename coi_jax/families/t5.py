"""T5 1.0 (Raffel et al. 2020), and 1.1 (Shazeer 2020) whose shape FLAN-T5 (Chung et al. 2022) has too."""

from coi_jax.common.errors import UserError
from coi_jax.families.family import Family, Fields, TensorNames

T5: Fields = dict(kind="t5", relative_buckets=32, relative_max_distance=128, norm_epsilon=1e-6, vocabulary_size=32_128)
V10 = T5 | dict(mlp="relu", tied_embedding=True)
V11 = T5 | dict(mlp="gated_gelu", tied_embedding=False)


def sizes(layers: int, model_dim: int, heads: int, head_dim: int, mlp_dim: int) -> Fields:
    """Return the fields of a model section that differ between the models of one family.

    Args:
      layers: number of layers of encoder and decoder each.
      model_dim: width of the residual stream.
      heads: heads.
      head_dim: width of a head.
      mlp_dim: width of the MLP.
    """
    return dict(
        layers=layers, decoder_layers=layers, model_dim=model_dim, heads=heads, head_dim=head_dim, mlp_dim=mlp_dim
    )


V11_SIZES = {
    "small": sizes(8, 512, 6, 64, 1024),
    "base": sizes(12, 768, 12, 64, 2048),
    "large": sizes(24, 1024, 16, 64, 2816),
    "xl": sizes(24, 2048, 32, 64, 5120),
    "xxl": sizes(24, 4096, 64, 64, 10_240),
}
MODELS = {
    "t5_small": V10 | sizes(6, 512, 8, 64, 2048),
    "t5_base": V10 | sizes(12, 768, 12, 64, 3072),
    "t5_large": V10 | sizes(24, 1024, 16, 64, 4096),
    "t5_3b": V10 | sizes(24, 1024, 32, 128, 16_384),
    "t5_11b": V10 | sizes(24, 1024, 128, 128, 65_536),
    **{f"t5_v11_{name}": V11 | size for name, size in V11_SIZES.items()},
    **{f"flan_t5_{name}": V11 | size for name, size in V11_SIZES.items()},
}

DEFAULTS: Fields = dict(
    vocab_size=32_128,
    d_model=512,
    d_kv=64,
    d_ff=2048,
    num_layers=6,
    num_decoder_layers=None,
    num_heads=8,
    relative_attention_num_buckets=32,
    relative_attention_max_distance=128,
    layer_norm_epsilon=1e-6,
    feed_forward_proj="relu",
    tie_word_embeddings=True,
)
FIXED: Fields = dict(is_encoder_decoder=True, pad_token_id=0, decoder_start_token_id=0, tie_encoder_decoder=False)
RENAMED = {
    "vocab_size": "vocabulary_size",
    "num_layers": "layers",
    "num_decoder_layers": "decoder_layers",
    "d_model": "model_dim",
    "num_heads": "heads",
    "d_kv": "head_dim",
    "d_ff": "mlp_dim",
    "relative_attention_num_buckets": "relative_buckets",
    "relative_attention_max_distance": "relative_max_distance",
    "layer_norm_epsilon": "norm_epsilon",
    "tie_word_embeddings": "tied_embedding",
}
MLPS = {"relu": "relu", "gated-gelu": "gated_gelu"}

GATED = TensorNames(
    switches=dict(kind="t5", mlp="gated_gelu"),
    keys={
        "embedding.table": "shared.weight",
        "encoder_bias.table": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.attention_norm.scale": "encoder.block.{}.layer.0.layer_norm.weight",
        "encoder.attention.query.kernel": "encoder.block.{}.layer.0.SelfAttention.q.weight",
        "encoder.attention.key.kernel": "encoder.block.{}.layer.0.SelfAttention.k.weight",
        "encoder.attention.value.kernel": "encoder.block.{}.layer.0.SelfAttention.v.weight",
        "encoder.attention.output.kernel": "encoder.block.{}.layer.0.SelfAttention.o.weight",
        "encoder.mlp_norm.scale": "encoder.block.{}.layer.1.layer_norm.weight",
        "encoder.mlp.gate.kernel": "encoder.block.{}.layer.1.DenseReluDense.wi_0.weight",
        "encoder.mlp.up.kernel": "encoder.block.{}.layer.1.DenseReluDense.wi_1.weight",
        "encoder.mlp.down.kernel": "encoder.block.{}.layer.1.DenseReluDense.wo.weight",
        "encoder_norm.scale": "encoder.final_layer_norm.weight",
        "decoder_bias.table": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "decoder.attention_norm.scale": "decoder.block.{}.layer.0.layer_norm.weight",
        "decoder.attention.query.kernel": "decoder.block.{}.layer.0.SelfAttention.q.weight",
        "decoder.attention.key.kernel": "decoder.block.{}.layer.0.SelfAttention.k.weight",
        "decoder.attention.value.kernel": "decoder.block.{}.layer.0.SelfAttention.v.weight",
        "decoder.attention.output.kernel": "decoder.block.{}.layer.0.SelfAttention.o.weight",
        "decoder.cross_norm.scale": "decoder.block.{}.layer.1.layer_norm.weight",
        "decoder.cross_attention.query.kernel": "decoder.block.{}.layer.1.EncDecAttention.q.weight",
        "decoder.cross_attention.key.kernel": "decoder.block.{}.layer.1.EncDecAttention.k.weight",
        "decoder.cross_attention.value.kernel": "decoder.block.{}.layer.1.EncDecAttention.v.weight",
        "decoder.cross_attention.output.kernel": "decoder.block.{}.layer.1.EncDecAttention.o.weight",
        "decoder.mlp_norm.scale": "decoder.block.{}.layer.2.layer_norm.weight",
        "decoder.mlp.gate.kernel": "decoder.block.{}.layer.2.DenseReluDense.wi_0.weight",
        "decoder.mlp.up.kernel": "decoder.block.{}.layer.2.DenseReluDense.wi_1.weight",
        "decoder.mlp.down.kernel": "decoder.block.{}.layer.2.DenseReluDense.wo.weight",
        "decoder_norm.scale": "decoder.final_layer_norm.weight",
        "head.kernel": "lm_head.weight",
    },
    embedding_copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
)
UNGATED = TensorNames(
    switches=dict(kind="t5", mlp="relu"),
    keys=GATED.keys
    | {
        "encoder.mlp.up.kernel": "encoder.block.{}.layer.1.DenseReluDense.wi.weight",
        "decoder.mlp.up.kernel": "decoder.block.{}.layer.2.DenseReluDense.wi.weight",
    },
    embedding_copies=GATED.embedding_copies,
)


def read(values: Fields) -> Fields:
    """Return the fields of the model section that a config.json decides.

    Raises:
      UserError: `feed_forward_proj` is neither of the two MLPs that the network has.
    """
    mlp = values["feed_forward_proj"]
    if mlp not in MLPS:
        raise UserError("config.json: feed_forward_proj", mlp, f"the network here has {' and '.join(MLPS)}")
    section = {ours: values[theirs] for theirs, ours in RENAMED.items()}
    return section | {"decoder_layers": section["decoder_layers"] or section["layers"], "mlp": MLPS[mlp]}


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    values = {theirs: section[ours] for theirs, ours in RENAMED.items()}
    return values | {
        "feed_forward_proj": {ours: theirs for theirs, ours in MLPS.items()}[section["mlp"]],
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "dropout_rate": section["dropout"],
    }


FAMILY = Family(
    model_type="t5",
    architecture="T5ForConditionalGeneration",
    switches=T5,
    variants={"t5_v10": V10, "t5_v11": V11},
    models=MODELS,
    defaults=DEFAULTS,
    fixed=FIXED,
    read=read,
    write=write,
    tensors=(GATED, UNGATED),
    # T5's first checkpoints hold a table that no version of T5 reads.
    unused_keys=r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\..*",
    tokenizer_file="spiece.model",
)
