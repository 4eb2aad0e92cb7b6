"""Random weights as a Hugging Face folder, which both sides of a benchmark read."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks import sides
from coi_jax import files
from coi_jax.config import validate
from coi_jax.hugging_face_config import published
from coi_jax.hugging_face_names import to_params, to_tensors
from coi_jax.models import Network, Params, build

WEIGHTS = "model.safetensors"


def save(network: Network, params: Params, folder: Path) -> None:
    """Writes a network's parameters, and the config.json that describes it."""
    folder.mkdir(parents=True)
    tensors = {key: np.ascontiguousarray(tensor) for key, tensor in to_tensors(network.config, params)}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}  # whoever generates says which
    files.write_json(folder / "config.json", published(network.config, network.vocabulary_size) | ends)


def load(network: Network, folder: Path, shardings: Any) -> Params:
    """The parameters in a folder, each where its sharding says."""
    params = to_params(network.config, network.abstract(), load_file(folder / WEIGHTS))
    return jax.tree.map(jax.device_put, params, shardings)


class Writer:
    """Draws the weights of a config's network where the accelerator is, in a process of its own."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    def write(self) -> int:
        """Writes them; returns how many parameters there are."""
        config = validate(self._settings["config"])
        network = build(config.model, config.model.vocabulary_size)
        params = jax.jit(network.init)(jax.random.key(config.seed))
        save(network, params, Path(self._settings["weights"]))
        return sum(leaf.size for leaf in jax.tree.leaves(params))


if __name__ == "__main__":
    sides.serve(Writer)
