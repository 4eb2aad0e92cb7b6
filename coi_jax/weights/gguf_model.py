"""What a GGUF file says of a network, as Hugging Face spells it: config.json, and a key for every tensor.

`llama.cpp` writes the files (`convert_hf_to_gguf.py`). It interleaves the rotary halves of Llama's queries and keys,
stores Gemma's norms as factors instead of offsets to one, and keeps the frequencies of Llama 3's rotary scaling in
place of its parameters; all of this is undone here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32

from coi_jax.common.errors import shorten
from coi_jax.common.wording import with_article
from coi_jax.families.family import Fields
from coi_jax.families.registry import FAMILIES
from coi_jax.weights.gguf_parts import GgufParts

Value = TypeVar("Value", int, float, str)
MOST_LAYERS = 10_000
EMBEDDING, HEAD, ROPE_FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
# By the name in a GGUF file: the key, and the shape by letters. d: model, q: all query heads, k: all key-value heads,
# h: one head, f: MLP, v: vocabulary.
OUTER = {
    EMBEDDING: ("model.embed_tokens.weight", "vd"),
    "output_norm.weight": ("model.norm.weight", "d"),
    HEAD: ("lm_head.weight", "vd"),
}
LAYER = {
    "attn_norm.weight": ("input_layernorm.weight", "d"),
    "attn_q.weight": ("self_attn.q_proj.weight", "qd"),
    "attn_k.weight": ("self_attn.k_proj.weight", "kd"),
    "attn_v.weight": ("self_attn.v_proj.weight", "kd"),
    "attn_output.weight": ("self_attn.o_proj.weight", "dq"),
    "ffn_norm.weight": ("post_attention_layernorm.weight", "d"),
    "ffn_gate.weight": ("mlp.gate_proj.weight", "fd"),
    "ffn_up.weight": ("mlp.up_proj.weight", "fd"),
    "ffn_down.weight": ("mlp.down_proj.weight", "df"),
}
BIASES = {
    "attn_q.bias": ("self_attn.q_proj.bias", "q"),
    "attn_k.bias": ("self_attn.k_proj.bias", "k"),
    "attn_v.bias": ("self_attn.v_proj.bias", "k"),
}
HEAD_NORMS = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", "h"),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", "h"),
}
GEMMA_NORMS = {
    "ffn_norm.weight": ("pre_feedforward_layernorm.weight", "d"),
    "post_attention_norm.weight": ("post_attention_layernorm.weight", "d"),
    "post_ffw_norm.weight": ("post_feedforward_layernorm.weight", "d"),
}
INTERLEAVED = ("attn_q.weight", "attn_k.weight")


@dataclass(frozen=True)
class Architecture:
    """One value of `general.architecture`.

    Attributes:
      model_type: of its config.json.
      layer: names of a layer's tensors besides `LAYER`, or in place of them.
      is_interleaved: whether the rotary halves of queries and keys are interleaved.
      norm_offset: what its norms have more than those of Hugging Face.
      config: fields of config.json that all its models have.
    """

    model_type: str
    layer: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    is_interleaved: bool = False
    norm_offset: float = 0.0
    config: Mapping[str, Any] = field(default_factory=dict)


ARCHITECTURES = {
    "llama": Architecture("llama", is_interleaved=True),
    "qwen2": Architecture("qwen2", BIASES, config={"use_sliding_window": False}),
    "qwen3": Architecture("qwen3", HEAD_NORMS, config={"use_sliding_window": False}),
    "smollm3": Architecture("smollm3", is_interleaved=True, config={"no_rope_layer_interval": 4}),
    "gemma2": Architecture("gemma2", GEMMA_NORMS, norm_offset=1.0),
    "gemma3": Architecture("gemma3_text", HEAD_NORMS | GEMMA_NORMS, norm_offset=1.0),
}
# What the files of Gemma do not say, as llama.cpp fills it in: every how many layers one attends to all, and how many
# layers the 27B has, whose queries are scaled by the width of the model per head.
GEMMA_INTERVALS = {"gemma2": 2, "gemma3": 6}
GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}
GEMMA3_LOCAL_THETA = 10_000.0
GEMMA2_SOFTCAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}


class GgufModel:
    """The network in a GGUF file.

    Attributes:
      file: the file, or all its parts.
      config: its config.json, without token ids and dtype.
      keys: the tensors in the order of their layers: the name in the file by the key of Hugging Face.
    """

    def __init__(self, file: GgufParts) -> None:
        """Read the metadata.

        Raises:
          UserError: the architecture is not known, or the file is not as llama.cpp writes it.
        """
        self.file = file
        name = self._get("general.architecture", str)
        if name not in ARCHITECTURES:
            hint = f"cannot be read from GGUF; {', '.join(ARCHITECTURES)} can: take the published safetensors"
            raise file.error(hint, f"general.architecture = {shorten(name, 100)}")
        self._name, self._architecture = name, ARCHITECTURES[name]
        self._read_sizes()
        self.keys = self._find_tensors()
        self.config = self._config()
        file.check_types()

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.file.tensors[self.keys[key]].shape

    def read(self, key: str) -> Float32[np.ndarray, "..."]:
        """Return a tensor as Hugging Face has it."""
        name = self.keys[key]
        tensor = self.file.read(name)
        if self._architecture.norm_offset and name.endswith("norm.weight"):
            return tensor - np.float32(self._architecture.norm_offset)
        if self._architecture.is_interleaved and name.endswith(INTERLEAVED):
            return _separate_halves(tensor, self._head_dim)
        return tensor

    def _get(self, name: str, kind: type[Value], default: Value | None = None) -> Value:
        """Return a value of the metadata; raise UserError where it is of another kind, or missing without a default."""
        value = self.file.metadata.get(name, default)
        if isinstance(value, kind) and type(value) is not bool:
            return value
        hint = f"is no {kind.__name__}, which this architecture needs; fetch the file again"
        raise self.file.error(hint, f"{name} = {shorten(value, 100)}")

    def _own(self, name: str, kind: type[Value], default: Value | None = None) -> Value:
        return self._get(f"{self._name}.{name}", kind, default)

    def _size(self, name: str, default: int | None = None, most: int = 2**31) -> int:
        value = self._own(name, int, default)
        if not 0 < value <= most:
            raise self.file.error("is no such number; fetch the file again", f"{self._name}.{name} = {value}")
        return value

    def _read_sizes(self) -> None:
        if EMBEDDING not in self.file.tensors:
            raise self.file.error(f"has no {EMBEDDING}; it holds no language model")
        self._layers = self._size("block_count", most=MOST_LAYERS)
        self._model_dim = self._size("embedding_length")
        self._heads = self._size("attention.head_count")
        self._kv_heads = self._size("attention.head_count_kv", self._heads)
        rotary = self._size("rope.dimension_count", max(self._model_dim // self._heads, 1))
        self._head_dim = self._size("attention.key_length", rotary)
        if rotary != self._head_dim and f"{self._name}.rope.dimension_count" in self.file.metadata:
            raise self.file.error(f"rotates {rotary} of {self._head_dim} dimensions, which is not computed here")
        self._letters = {
            "d": self._model_dim,
            "q": self._heads * self._head_dim,
            "k": self._kv_heads * self._head_dim,
            "h": self._head_dim,
            "f": self._size("feed_forward_length"),
            "v": self.file.tensors[EMBEDDING].shape[0],
        }

    def _find_tensors(self) -> dict[str, str]:
        """Return the name of every tensor by its key; raise UserError where the file has others, or other shapes."""
        due = {
            f"blk.{number}.{name}": (f"model.layers.{number}.{key}", shape)
            for number in range(self._layers)
            for name, (key, shape) in {**LAYER, **self._architecture.layer}.items()
        } | OUTER
        found = set(self.file.tensors) - {ROPE_FACTORS}
        if unknown := found - set(due):
            network = with_article(self._name)
            hint = f"has no place in {network} as it is computed here; take another file, or the safetensors"
            raise self.file.error(hint, shorten(min(unknown), 100))
        if missing := set(due) - found - {HEAD}:
            raise self.file.error("is missing; fetch the file again", min(missing))
        for name, (_, letters) in due.items():
            shape = tuple(self._letters[letter] for letter in letters)
            if name in found and self.file.tensors[name].shape != shape:
                hint = f"has the shape {self.file.tensors[name].shape}, where {shape} is due; fetch the file again"
                raise self.file.error(hint, name)
        return {key: name for name, (key, _) in due.items() if name in found}

    def _config(self) -> Fields:
        if self._own("expert_count", int, 0):
            raise self.file.error("is a mixture of experts, which is not computed here; take a dense model")
        kind = self._architecture.model_type
        values: Fields = {
            "architectures": [FAMILIES[kind].architecture],
            "model_type": kind,
            "vocab_size": self._letters["v"],
            "hidden_size": self._model_dim,
            "intermediate_size": self._letters["f"],
            "num_hidden_layers": self._layers,
            "num_attention_heads": self._heads,
            "num_key_value_heads": self._kv_heads,
            "head_dim": self._head_dim,
            "max_position_embeddings": self._size("context_length"),
            "rms_norm_eps": self._own("attention.layer_norm_rms_epsilon", float),
            "rope_theta": self._own("rope.freq_base", float, 10_000.0),
            "tie_word_embeddings": HEAD not in self.file.tensors,
            **self._architecture.config,
        }
        values["rope_scaling"] = self._rope_scaling(values["rope_theta"])
        return values | self._gemma_fields()

    def _gemma_fields(self) -> Fields:
        """Return what only Gemma has: sliding windows, soft caps, and a scale of its queries."""
        if self._name not in GEMMA_INTERVALS:
            if self._own("attention.sliding_window", int, 0):
                raise self.file.error("has a sliding window, which is not read from GGUF; take the safetensors")
            return {}
        interval = self._size("attention.sliding_window_pattern", GEMMA_INTERVALS[self._name])
        is_27b = self._layers == GEMMA_27B_LAYERS[self._name]
        is_global = [number % interval == 0 for number in range(1, self._layers + 1)]
        values = {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": self._model_dim // self._heads if is_27b else self._head_dim,
            "sliding_window": self._size("attention.sliding_window"),
            "layer_types": ["full_attention" if one else "sliding_attention" for one in is_global],
        }
        if self._name == "gemma2":
            return values | {name: self._own(name, float, value) for name, value in GEMMA2_SOFTCAPS.items()}
        theta = self._own("rope.freq_base_swa", float, GEMMA3_LOCAL_THETA)
        return values | dict.fromkeys(GEMMA2_SOFTCAPS) | {"rope_local_base_freq": theta}

    def _rope_scaling(self, theta: float) -> Fields | None:
        if ROPE_FACTORS in self.file.tensors:
            return self._llama3_scaling(theta)
        kind = self._own("rope.scaling.type", str, "linear")
        factor = self._own("rope.scaling.factor", float, self._own("rope.scale_linear", float, 0.0))
        if kind == "none" or factor in (0, 1):
            return None
        if kind == "linear":
            return {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            original = self._size("rope.scaling.original_context_length")
            return {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original}
        raise self.file.error("is not computed here; take another model", f"{self._name}.rope.scaling.type = {kind}")

    def _llama3_scaling(self, theta: float) -> Fields:
        """Return the parameters of Llama 3's rotary scaling, of which the file has the factor of each frequency."""
        factors = self.file.read(ROPE_FACTORS)
        scaling = {
            "rope_type": "llama3",
            "factor": float(factors.max()),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        due = llama3_factors(scaling, theta, self._head_dim)
        if factors.shape != due.shape or not np.allclose(factors, due, rtol=1e-4):
            raise self.file.error("is not the scaling of Llama 3.1 to 3.3; take the safetensors", ROPE_FACTORS)
        return scaling


def llama3_factors(scaling: Fields, theta: float, head_dim: int) -> Float32[np.ndarray, " half"]:
    """Return by how much Llama 3's rotary scaling divides each frequency (transformers: `modeling_rope_utils.py`).

    Args:
      scaling: `rope_scaling` of a config.json.
      theta: the base of the frequencies.
      head_dim: the width of a head.
    """
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    lengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = (scaling["original_max_position_embeddings"] / lengths - low) / (high - low)
    smooth = smooth.clip(0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), np.float32)


def _separate_halves(rows: Float32[np.ndarray, "out d"], head_dim: int) -> Float32[np.ndarray, "out d"]:
    """Return the rows of each head with the first rotary half before the second, which the file interleaves."""
    pairs = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
