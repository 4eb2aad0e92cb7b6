"""Export adapters in the format of the library peft: `adapter_model.safetensors` and `adapter_config.json`."""

from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float
from safetensors.numpy import save

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path
from coi_jax.config.model import T5Config
from coi_jax.models import Network, Params
from coi_jax.models.layers import Linear
from coi_jax.weights.hf_names import names

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def export(folder: PathLike, network: Network, adapters: Params, base: str) -> None:
    """Write a folder that `peft.PeftModel.from_pretrained` reads.

    Args:
      folder: a new folder, or one of an earlier export.
      network: the network, with adapters.
      adapters: the trained parameters, of `Network.split`.
      base: the name or folder of the checkpoint that they were trained on; "" where it has none.

    Raises:
      UserError: the network has no adapters.
    """
    if network.lora is None:
        raise UserError("config.lora", None, "this run trained all weights; it has no adapters to export")
    files.write_bytes(as_path(folder) / WEIGHTS, save(tensors(network, adapters), metadata={"format": "pt"}))
    files.write_json(as_path(folder) / CONFIG, adapter_config(network, base))


def tensors(network: Network, adapters: Params) -> dict[str, Float[np.ndarray, "outputs inputs"]]:
    """Return A and B of every layer by peft's keys, as torch stores them: [outputs, inputs]."""
    flat = nnx.traversals.flatten_mapping(adapters)
    found = {}
    for name, linear in network.adapted_linear_maps.items():
        a, b = (np.asarray(flat[*name.split("."), "adapter", part]) for part in ("a", "b"))
        rank = a.shape[-1]
        layers = zip(a, b, strict=True) if linear.stacked else [(a, b)]
        for key, (down, up) in zip(_keys(network, name, linear), layers, strict=True):
            found[f"base_model.model.{key}.lora_A.weight"] = np.ascontiguousarray(down.reshape(-1, rank).T)
            found[f"base_model.model.{key}.lora_B.weight"] = np.ascontiguousarray(up.reshape(rank, -1).T)
    return found


def adapter_config(network: Network, base: str) -> dict[str, Any]:
    """Return the fields of peft's LoraConfig that describe the tensors."""
    assert network.lora is not None
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if isinstance(network.config, T5Config) else "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "r": network.lora.rank,
        "lora_alpha": network.lora.alpha,
        "use_rslora": network.lora.rank_stabilized,
        "lora_dropout": network.lora.dropout,
        "target_modules": target_modules(network),
        "fan_in_fan_out": False,
        "bias": "none",
        "inference_mode": True,
    }


def target_modules(network: Network) -> list[str]:
    """Return the suffixes of module names that have adapters; whole names where other modules share the suffix."""
    adapted = [key for name, linear in network.adapted_linear_maps.items() for key in _keys(network, name, linear)]
    every = [key for name, linear in network.linear_maps.items() for key in _keys(network, name, linear)]
    ends = sorted({key.split(".")[-1] for key in adapted})
    meant = [key for key in every if key.split(".")[-1] in ends]
    return ends if set(meant) == set(adapted) else sorted(adapted)


def _keys(network: Network, name: str, linear: Linear) -> list[str]:
    """Return the names of a linear map's modules in the published checkpoint, one per layer."""
    pattern = names(network.config)[f"{name}.kernel"].removesuffix(".weight")
    layers = linear.kernel.shape[0] if linear.stacked else 1
    return [pattern.format(layer) for layer in range(layers)]
