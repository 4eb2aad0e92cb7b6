"""GGUF files of tiny models, written as llama.cpp's converter does it, from what transformers holds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from sentencepiece import sentencepiece_model_pb2
from transformers import LlamaConfig, PretrainedConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

ARCHITECTURES = {"gemma3_text": "gemma3"}  # where it is not the model type
GEMMAS = ("gemma2", "gemma3_text")
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def write(path: Path, theirs: PreTrainedModel, tokenizer: Path, kind: GGMLQuantizationType, pre: str = "") -> None:
    """Write a model and its tokenizer; the model's matrices become what the file holds of them.

    Args:
      path: a new file.
      theirs: the model.
      tokenizer: a folder with a tokenizer of no more tokens than the model has rows.
      kind: the type of the matrices; vectors stay float32.
      pre: the name of the pre-tokenizer of a byte-level tokenizer.
    """
    config = theirs.config
    writer = GGUFWriter(path, ARCHITECTURES.get(config.model_type, config.model_type))
    _add_config(writer, config)
    if pre:
        _add_byte_level(writer, tokenizer, pre, config.vocab_size)
    else:
        _add_sentencepiece(writer, tokenizer)
    _add_special(writer, tokenizer)
    if isinstance(config, LlamaConfig) and config.rope_scaling:
        scaled: torch.Tensor = LlamaRotaryEmbedding(config).inv_freq
        plain = config.rope_theta ** -(torch.arange(0, config.head_dim, 2) / config.head_dim)
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy())
    with torch.no_grad():
        for key, weight in theirs.named_parameters():
            _add_tensor(writer, key, weight, config, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_config(writer: GGUFWriter, config: PretrainedConfig) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if config.model_type in GEMMAS:
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    scaling = getattr(config, "rope_scaling", None) or {}
    if scaling.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])


def _add_tensor(
    writer: GGUFWriter, key: str, weight: torch.Tensor, config: PretrainedConfig, kind: GGMLQuantizationType
) -> None:
    is_gemma = config.model_type in GEMMAS
    name, _, end = key.rpartition(".")
    if name.startswith("model.layers."):
        number, _, part = name.removeprefix("model.layers.").partition(".")
        name = f"blk.{number}.{(LAYER | GEMMA if is_gemma else LAYER)[part]}"
    else:
        name = OUTER[name]
    values = weight.numpy()
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-1], 0)
    is_interleaved = config.model_type in ("llama", "smollm3") and heads > 0
    if weight.ndim == 1:
        writer.add_tensor(f"{name}.{end}", values + is_gemma)
        return
    stored = gguf.quantize(_interleave(values, heads) if is_interleaved else values, kind)
    writer.add_tensor(f"{name}.{end}", stored, raw_dtype=kind)
    kept = gguf.dequantize(stored, kind)
    weight.copy_(torch.from_numpy(_separate(kept, heads) if is_interleaved else kept.copy()))


def _interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _separate(rows: np.ndarray, heads: int) -> np.ndarray:
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _add_byte_level(writer: GGUFWriter, folder: Path, pre: str, rows: int) -> None:
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = dict(values["model"]["vocab"])
    kinds = dict.fromkeys(ids, TokenType.NORMAL)
    for entry in values["added_tokens"]:
        ids[entry["content"]] = entry["id"]
        kinds[entry["content"]] = TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED
    tokens = sorted(ids, key=ids.__getitem__)
    padding = [f"[PAD{id}]" for id in range(len(tokens), rows)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*tokens, *padding])
    writer.add_token_types([*map(kinds.__getitem__, tokens), *[TokenType.UNUSED] * len(padding)])
    pairs = values["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in pairs])


def _add_sentencepiece(writer: GGUFWriter, folder: Path) -> None:
    model = sentencepiece_model_pb2.ModelProto.FromString((folder / "tokenizer.model").read_bytes())
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {int(id) for id, entry in settings["added_tokens_decoder"].items() if entry["special"]}
    unknown = TokenType.UNKNOWN
    kinds = [
        piece.type if piece.type == unknown else (TokenType.CONTROL if id in special else piece.type)
        for id, piece in enumerate(model.pieces)
    ]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    spaces = {id for id, piece in enumerate(model.pieces) if piece.type == TokenType.USER_DEFINED}
    writer.add_token_list(
        [piece.piece.replace("▁", " ") if id in spaces else piece.piece for id, piece in enumerate(model.pieces)]
    )
    writer.add_token_scores([piece.score for piece in model.pieces])
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)


def _add_special(writer: GGUFWriter, folder: Path) -> None:
    settings: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = {entry["content"]: int(id) for id, entry in settings["added_tokens_decoder"].items()}
    adds: dict[str, Callable[[int], None]] = {
        "bos_token": writer.add_bos_token_id,
        "eos_token": writer.add_eos_token_id,
        "unk_token": writer.add_unk_token_id,
        "pad_token": writer.add_pad_token_id,
    }
    for name, add in adds.items():
        if settings.get(name):
            found = settings[name]
            add(ids[found["content"] if isinstance(found, dict) else found])
    if "add_bos_token" in settings:
        writer.add_add_bos_token(settings["add_bos_token"])
    template = folder / "chat_template.jinja"
    if template.exists():
        writer.add_chat_template(template.read_text(encoding="utf-8"))
