"""Ministral 3 for the version 4 of transformers that the tests use: its Mistral with version 5's queries.

Version 5 multiplies queries by a factor of their position after they are rotated. The factor is the same for all
channels of a head, so it may as well multiply the scores of these queries. Positions are stretched by the YaRN of
version 4.
"""

import os

os.environ["USE_TF"] = "0"  # or transformers imports TensorFlow

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralForCausalLM


class Ministral3Config(MistralConfig):
    """The fields and the defaults of version 5."""

    model_type = "ministral3"

    def __init__(self, rope_parameters: Any = None, **fields: Any) -> None:
        sizes = {"vocab_size": 131_072, "num_hidden_layers": 34, "head_dim": 128, "rms_norm_eps": 1e-5}
        others = {"sliding_window": None, "max_position_embeddings": 262_144, "pad_token_id": 11}
        super().__init__(**sizes | others | fields)
        self.rope_parameters = rope_parameters or {
            "type": "yarn",
            "rope_theta": 1_000_000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 16_384,
            "max_position_embeddings": self.max_position_embeddings,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale_all_dim": 1.0,
            "mscale": 1.0,
            "llama_4_scaling_beta": 0.1,
        }
        self.rope_theta, self.rope_scaling = self.rope_parameters["rope_theta"], self.rope_parameters  # of version 4

    def to_dict(self) -> dict[str, Any]:
        """Version 5 writes neither of version 4's fields."""
        values: dict[str, Any] = super().to_dict()
        return {name: value for name, value in values.items() if name not in ("rope_theta", "rope_scaling")}


class Ministral3Attention(MistralAttention):
    """Attention whose queries grow with their position."""

    def forward(self, hidden_states: torch.Tensor, **rest: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        rope = self.config.rope_parameters
        intervals = torch.floor(rest["cache_position"] / rope["original_max_position_embeddings"])
        growth = 1 + rope["llama_4_scaling_beta"] * torch.log(1 + intervals)
        self.scaling = self.head_dim**-0.5 * growth[:, None]  # of a query's row of scores
        attended: tuple[torch.Tensor, torch.Tensor | None] = super().forward(hidden_states, **rest)
        return attended


class Ministral3ForCausalLM(MistralForCausalLM):
    """The whole network; only eager attention takes a scale for each query."""

    config_class = Ministral3Config
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = False

    def __init__(self, config: Ministral3Config) -> None:
        super().__init__(config)
        for number, layer in enumerate(self.model.layers):
            layer.self_attn = Ministral3Attention(config, number)
        self.post_init()


AutoConfig.register("ministral3", Ministral3Config)
AutoModelForCausalLM.register(Ministral3Config, Ministral3ForCausalLM)
