"""Random weights as a published folder, which both sides of a benchmark read."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import sides
from coi_jax.common import files
from coi_jax.config.run import RunConfig, validate
from coi_jax.models import Network, Params, build
from coi_jax.weights.hf_config import to_hf_config
from coi_jax.weights.hf_names import parameter_mappings
from coi_jax.weights.safetensors_files import Tensor, TensorSpec, write_tensors
from coi_jax.weights.sources import CONFIG, InMemoryWeights

LARGEST_FILE = 5 * 10**9  # bytes


def draw(config: RunConfig, folder: Path) -> int:
    """Write the fresh weights of a config's network, without adapters; return how many parameters it has."""
    network = build(config.model, config.model.vocabulary_size or 0)
    params = jax.jit(network.init)(jax.random.key(config.seed))
    save(network, params, folder, jnp.dtype(config.model.dtype))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def save(network: Network, params: Params, folder: Path, dtype: np.dtype) -> None:
    """Write a network's parameters, and the config.json that describes it.

    Args:
      network: whose parameters they are.
      params: to write.
      folder: new.
      dtype: that they are written in.
    """
    folder.mkdir(parents=True)
    source = InMemoryWeights(params)
    mappings = parameter_mappings(network.config, network.abstract())
    parts = {key: (mapping, number) for mapping in mappings.values() for number, key in enumerate(mapping.keys)}

    def read(key: str) -> Tensor:
        mapping, number = parts[key]
        return mapping.to_tensor(source.layer(mapping, number))

    specs = [TensorSpec(key, mapping.tensor_shape, dtype) for key, (mapping, _) in parts.items()]
    write_tensors(folder, specs, read, LARGEST_FILE)
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}  # whoever generates says which
    files.write_json(folder / CONFIG, to_hf_config(network.config, network.vocabulary_size) | ends)


class Writer:
    """Draws weights where the accelerator is, in a process that gives it back."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    def draw(self) -> int:
        """See `draw`."""
        return draw(validate(self._settings["config"]), Path(self._settings["weights"]))


if __name__ == "__main__":
    sides.serve(Writer)
