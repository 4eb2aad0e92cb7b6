"""One tiny model of each family, as transformers configures it: odd sizes, and every switch of the family on.

The weights are random; the published shapes are held by the tests of presets.
"""

import os

os.environ["USE_TF"] = "0"  # or transformers imports TensorFlow

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MinistralConfig,
    MistralConfig,
    MT5Config,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)
from transformers.models.smollm3.configuration_smollm3 import SmolLM3Config

from tests.helpers.ministral3_reference import Ministral3Config

torch.set_num_threads(1)  # these products are too small to share, and other tests run beside

VOCABULARY = 67
DECODER = dict(
    vocab_size=VOCABULARY,
    hidden_size=20,
    intermediate_size=36,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=512,
    attn_implementation="eager",
    bos_token_id=1,
    eos_token_id=None,
    pad_token_id=0,
)
T5 = dict(
    vocab_size=VOCABULARY,
    d_model=20,
    d_kv=8,
    d_ff=36,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=3,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=16,
    decoder_start_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
)
LLAMA3_ROPE = dict(
    rope_type="llama3",
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=2.0, beta_slow=0.25)
GROWING = dict(
    rope_type="yarn",
    rope_theta=100.0,
    factor=4.0,
    original_max_position_embeddings=8,
    beta_fast=2.0,
    beta_slow=0.25,
    mscale=1.0,
    mscale_all_dim=1.0,
    llama_4_scaling_beta=0.5,
)
LOCAL = dict(sliding_window=5)
LONGROPE = dict(type="longrope", short_factor=[1.0, 1.5, 2.0], long_factor=[1.0, 4.0, 16.0])
WITHOUT_HEAD_DIM = {name: value for name, value in DECODER.items() if name != "head_dim"} | dict(hidden_size=24)

FAMILIES: dict[str, PretrainedConfig] = {
    "Llama 1": LlamaConfig(**DECODER | dict(num_key_value_heads=6, num_attention_heads=6, rms_norm_eps=1e-6)),
    "Llama 2": LlamaConfig(**DECODER | dict(rms_norm_eps=1e-5, num_attention_heads=5, num_key_value_heads=1)),
    "Llama 3": LlamaConfig(**DECODER | dict(rope_theta=500_000.0, rope_scaling=LLAMA3_ROPE)),
    "Llama 3.2": LlamaConfig(**DECODER | dict(rope_scaling=LLAMA3_ROPE, tie_word_embeddings=True)),
    "Mistral 0.1": MistralConfig(**DECODER | LOCAL),
    "Mistral 0.2, 0.3": MistralConfig(**DECODER | dict(sliding_window=None, rope_theta=1e6)),
    "Qwen 2.5": Qwen2Config(**WITHOUT_HEAD_DIM | dict(rope_theta=1e6)),
    "Qwen 2.5, small": Qwen2Config(**WITHOUT_HEAD_DIM | dict(tie_word_embeddings=True)),
    "Qwen 3": Qwen3Config(**DECODER | dict(rope_theta=1e6)),
    "Qwen 3, YaRN": Qwen3Config(**DECODER | dict(rope_theta=100.0, rope_scaling=YARN)),
    "Gemma 2": Gemma2Config(
        **DECODER | LOCAL | dict(query_pre_attn_scalar=12, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)
    ),
    "Gemma 3": Gemma3TextConfig(
        **DECODER
        | LOCAL
        | dict(num_hidden_layers=7, query_pre_attn_scalar=12, rope_scaling=dict(rope_type="linear", factor=8.0))
    ),
    "EXAONE 4": Exaone4Config(
        **DECODER
        | LOCAL
        | dict(num_hidden_layers=5, sliding_window_pattern=3, rope_theta=1e6, rope_scaling=LLAMA3_ROPE)
    ),
    "EXAONE 4, small": Exaone4Config(
        **DECODER | dict(sliding_window=None, tie_word_embeddings=True, layer_types=["full_attention"] * 3)
    ),
    "SmolLM3": SmolLM3Config(
        **WITHOUT_HEAD_DIM | dict(num_hidden_layers=4, no_rope_layer_interval=2, tie_word_embeddings=True)
    ),
    "OLMo 2": Olmo2Config(**WITHOUT_HEAD_DIM | dict(rope_theta=1e5)),
    "OLMo 3": Olmo3Config(**WITHOUT_HEAD_DIM | LOCAL | dict(num_hidden_layers=5, rope_theta=100.0, rope_scaling=YARN)),
    "Ministral": MinistralConfig(
        **DECODER | LOCAL | dict(num_hidden_layers=4, layer_types=["full_attention", *["sliding_attention"] * 3])
    ),
    "Ministral 3": Ministral3Config(**DECODER | dict(rope_parameters=GROWING)),
    "Phi-3": Phi3Config(**WITHOUT_HEAD_DIM | LOCAL),
    "Phi-3.5-mini": Phi3Config(
        **WITHOUT_HEAD_DIM | dict(hidden_size=36, rope_scaling=LONGROPE, original_max_position_embeddings=128)
    ),
    "Phi-4-mini": Phi3Config(
        **WITHOUT_HEAD_DIM
        | dict(
            hidden_size=48,
            partial_rotary_factor=0.75,
            rope_scaling=LONGROPE,
            original_max_position_embeddings=128,
            tie_word_embeddings=True,
        )
    ),
    "T5 1.0": T5Config(**T5 | dict(feed_forward_proj="relu", tie_word_embeddings=True)),
    "T5 1.1, FLAN-T5": T5Config(**T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "mT5": MT5Config(**T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
}


def reference(config: PretrainedConfig) -> PreTrainedModel:
    """The model with random weights: biases and norms too, which start as zeros and ones."""
    if config.is_encoder_decoder:
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(config).eval()
    else:
        model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(weight + 0.1 * noise if "norm" in name else 0.2 * noise)
    return model
