"""The layout of published models: what `transformers` loads, and the small files that a run keeps of its source."""

import re
from typing import Any

import numpy as np

from coi_jax.common import files
from coi_jax.common.storage import Folder, atomic_folder
from coi_jax.families.registry import FAMILIES
from coi_jax.models import Network
from coi_jax.runs.run_folder import RunFolder
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.weights.hf_config import from_hf_config, text_config, to_hf_config
from coi_jax.weights.hf_names import parameter_mappings
from coi_jax.weights.safetensors_files import Tensor, TensorSpec, write_tensors
from coi_jax.weights.sources import CONFIG, FIELD, WeightSource, is_run

# The files of a published model besides its tensors; none has all of them.
SMALL_FILES = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def copy_small_files(source: str, run: RunFolder) -> None:
    """Copy a published folder's small files, or those that another run has kept, into a run."""
    kept = str(RunFolder(source).published) if is_run(source) else source
    folder = Folder(kept, FIELD)
    if not run.published.exists() and folder.exists():
        for name in sorted(set(folder.names()) & set(SMALL_FILES)):
            files.write_bytes(run.published / name, folder.read(name))


def write(
    out: str, run: RunFolder, network: Network, source: WeightSource, dtype: np.dtype | None, max_shard_bytes: int
) -> None:
    """Write a run's model as a published folder: tensors, config.json, and the tokenizer's files that the run has.

    Args:
      out: a new folder, which may be in a bucket; it appears when it is complete.
      run: the run whose small files are copied.
      network: the network whose parameters they are.
      source: the parameters.
      dtype: the dtype of all tensors; each one's own where None.
      max_shard_bytes: the limit of a tensor file, unless one tensor alone is larger.

    Raises:
      UserError: no published family computes what the network does, or there is something at `out`.
    """
    mappings = parameter_mappings(network.config, network.abstract())
    parts = {key: (mapping, number) for mapping in mappings.values() for number, key in enumerate(mapping.keys)}
    specs = [
        TensorSpec(key, mapping.tensor_shape, dtype or source.dtype(mapping)) for key, (mapping, _) in parts.items()
    ]
    values = config_values(run, network, max(specs, key=lambda spec: spec.bytes).dtype)

    def read(key: str) -> Tensor:
        mapping, number = parts[key]
        return mapping.to_tensor(source.layer(mapping, number))

    with atomic_folder(out, marker=CONFIG) as folder:
        write_tensors(folder, sorted(specs, key=_layer), read, max_shard_bytes)
        files.write_json(folder / CONFIG, values)
        for name, data in _small_files(run, values["model_type"]).items():
            files.write_bytes(folder / name, data)


def _layer(spec: TensorSpec) -> int:
    """Return the number of a tensor's layer, -1 for tensors outside of layers."""
    found = re.search(r"\.([0-9]+)\.", spec.key)
    return int(found[1]) if found else -1


def config_values(run: RunFolder, network: Network, dtype: np.dtype) -> dict[str, Any]:
    """Return a config.json: the one that the run began from, if any, updated with what the network is.

    Args:
      run: the run, with the config.json that it kept.
      network: the network that is published.
      dtype: the dtype of its tensors.
    """
    original: dict[str, Any] = {}
    if (run.published / CONFIG).exists():
        original = dict(text_config(files.read_object(run.published / CONFIG, "config.json")))
    values = to_hf_config(network.config, network.vocabulary_size, original.get("model_type", ""))
    replaced = {*FAMILIES[values["model_type"]].defaults, "dtype"}
    kept = {name: value for name, value in original.items() if name not in replaced}
    merged = (kept or _ids(run.load_vocabulary())) | values | {"torch_dtype": dtype.name}
    assert from_hf_config(merged) == from_hf_config(values)
    return merged


def _ids(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the special ids that generation needs, for a model that was never published."""
    return {"bos_token_id": vocabulary.bos_id, "eos_token_id": vocabulary.eos_id, "pad_token_id": vocabulary.pad_id}


def _small_files(run: RunFolder, model_type: str) -> dict[str, bytes]:
    """Return the files besides config.json: those kept, else those of the run's tokenizer."""
    folder = run.published if run.published.is_dir() else run.tokenizer
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {path.name: path.read_bytes() for path in paths if path.name in SMALL_FILES and path.name != CONFIG}
    if "tokenizer.model" in found:
        found[FAMILIES[model_type].tokenizer_file] = found.pop("tokenizer.model")
    return found
