"""The layout of published models: what `transformers` loads, and the small files that a run keeps of its source."""

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from coi_jax.common import files
from coi_jax.common.json_reader import parse_field
from coi_jax.common.storage import Folder, atomic_folder
from coi_jax.families.published_config import from_hf_config, text_config
from coi_jax.families.registry import FAMILIES
from coi_jax.models import Network
from coi_jax.runs.run_folder import RunFolder
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.published import TokenizerVocabulary
from coi_jax.tokenizers.sentencepiece_export import tokenizer_files
from coi_jax.weights.hf_config import to_hf_config
from coi_jax.weights.hf_names import ParameterMapping, parameter_mappings, tensor_parts
from coi_jax.weights.safetensors_files import Tensor, TensorSpec, write_tensors
from coi_jax.weights.sources import CONFIG, FIELD, WeightSource, is_run

GENERATION = "generation_config.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
TOKENIZER_MODELS = ("tokenizer.json", "tokenizer.model", "spiece.model")
TOKENIZER_FILES = (
    *TOKENIZER_MODELS,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# The files of a published model besides its tensors; none has all of them.
SMALL_FILES = (CONFIG, GENERATION, *TOKENIZER_FILES)
# Those of them that are small JSON objects.
OBJECTS = (CONFIG, GENERATION, TOKENIZER_CONFIG, SPECIAL_TOKENS, "added_tokens.json", "chat_template.json")
# Fields of a config.json that mean the same in every family.
OF_ANY_FAMILY = ("max_position_embeddings", "bos_token_id", "pad_token_id")


def copy_small_files(source: str, run: RunFolder) -> None:
    """Copy a published folder's small files, or those that another run has kept, into a run: all of them, or none.

    Args:
      source: a published folder, or a run.
      run: that gets them, unless it has them.

    Raises:
      UserError: one of them is damaged, which would only be found in the copy.
    """
    kept = str(RunFolder(source).published) if is_run(source) else source
    folder = Folder(kept, FIELD)
    if run.published.exists() or not folder.exists():
        return
    names = set(folder.names())
    for name in sorted(names & set(OBJECTS)):
        folder.read_json(name)
    with atomic_folder(run.published, marker=CONFIG, field="workdir") as copy:
        for name in sorted(names & set(SMALL_FILES)):
            files.write_bytes(copy / name, folder.read(name))


def write(
    out: str, run: RunFolder, network: Network, source: WeightSource, dtype: np.dtype | None, max_shard_bytes: int
) -> None:
    """Write a run's model as a published folder: tensors, config.json, how it generates, and its tokenizer.

    Both the config files and the tokenizer name the ends that the run's answers have.

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
    largest = max((_tensor_spec("", [one], source, dtype) for one in mappings.values()), key=lambda spec: spec.bytes)
    values = config_values(run, network, largest.dtype)
    tensors = tensor_parts(mappings, FAMILIES[values["model_type"]])
    specs = [_tensor_spec(key, [mapping for mapping, _ in parts], source, dtype) for key, parts in tensors.items()]

    def read(key: str) -> Tensor:
        parts = [mapping.to_tensor(source.layer(mapping, number)) for mapping, number in tensors[key]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    with atomic_folder(out, marker=CONFIG) as folder:
        write_tensors(folder, sorted(specs, key=_layer), read, max_shard_bytes)
        files.write_json(folder / CONFIG, values)
        files.write_json(folder / GENERATION, generation_values(run, values))
        for name, data in _tokenizer_files(run, values["model_type"]).items():
            files.write_bytes(folder / name, data)


def _tensor_spec(
    key: str, parts: Sequence[ParameterMapping], source: WeightSource, dtype: np.dtype | None
) -> TensorSpec:
    """Return the shape and the dtype of a tensor that holds the rows of some parameters' layers.

    Args:
      key: of the tensor.
      parts: the parameters.
      source: the parameters' own dtypes; the widest of them is that of the tensor.
      dtype: the dtype in their place, if any.
    """
    rows, *width = parts[0].tensor_shape
    rows += sum(part.tensor_shape[0] for part in parts[1:])
    own = functools.reduce(jnp.promote_types, [source.dtype(part) for part in parts])
    return TensorSpec(key, (rows, *width), dtype or np.dtype(own))


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
    if values["model_type"] != original.get("model_type"):
        original = {name: original[name] for name in OF_ANY_FAMILY if name in original}
    kept = {name: value for name, value in original.items() if name not in replaced}
    ids = _ids(run.load_vocabulary(), original)
    merged = kept | values | ids | {"torch_dtype": dtype.name}
    assert from_hf_config(merged) == from_hf_config(values)
    return merged


def generation_values(run: RunFolder, values: dict[str, Any]) -> dict[str, Any]:
    """Return a generation_config.json: the one that the run began from, if any, with the ends of the run's answers.

    Args:
      run: the run, with the file that it kept.
      values: the config.json that is published.
    """
    path = run.published / GENERATION
    original = files.read_object(path, GENERATION) if path.exists() else {}
    start = {name: values[name] for name in ("decoder_start_token_id",) if name in values}
    return start | original | _ids(run.load_vocabulary(), original | values)


def _ids(vocabulary: Vocabulary, original: dict[str, Any]) -> dict[str, Any]:
    """Return the special ids that generation needs: the ends of the run's answers, and what the original lacks.

    Args:
      vocabulary: of the run.
      original: the config.json or generation_config.json that the run began from.
    """
    ends = vocabulary.stop_ids
    ids: dict[str, Any] = {"eos_token_id": ends[0] if len(ends) == 1 else list(ends)}
    for name, id in (("bos_token_id", vocabulary.bos_id), ("pad_token_id", vocabulary.pad_id)):
        ids[name] = id if original.get(name) is None else original[name]
    return ids


def _tokenizer_files(run: RunFolder, model_type: str) -> dict[str, bytes]:
    """Return the files of the tokenizer that the run was trained with; none where `transformers` has no such files."""
    kind = run.load_config().vocabulary.kind
    if kind in ("trained", "sentencepiece"):
        return tokenizer_files(run.vocabulary.read_bytes()) if run.vocabulary.exists() else {}
    if kind == "bytes":
        config = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 0}
        return {TOKENIZER_CONFIG: json.dumps(config).encode("utf-8")}
    found = _kept_tokenizer_files(run)
    if "tokenizer.model" in found:
        found[FAMILIES[model_type].tokenizer_file] = found.pop("tokenizer.model")
    vocabulary = run.load_vocabulary()
    if isinstance(vocabulary, TokenizerVocabulary):
        end = vocabulary.control_token(vocabulary.eos_id)
        for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS):
            if end is not None and name in found:
                found[name] = _with_end(found[name], end, f"{run.path}/{name}")
    return found


def _kept_tokenizer_files(run: RunFolder) -> dict[str, bytes]:
    """Return the run's tokenizer files, and what else the published folder has beside the same tokenizer."""
    own, published = (_read_files(folder) for folder in (run.tokenizer, run.published))
    is_same = all(published.get(name, data) == data for name, data in own.items() if name in TOKENIZER_MODELS)
    return published | own if is_same else own


def _read_files(folder: epath.Path) -> dict[str, bytes]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path.read_bytes() for path in paths if path.name in TOKENIZER_FILES}


def _with_end(data: bytes, end: str, where: str) -> bytes:
    """Return a JSON file of special tokens in which `eos_token` is `end`; the same bytes if it is so already.

    Args:
      data: the file.
      end: the text of the token.
      where: the file's name, for an error.
    """
    values = parse_field(data, "tokenizer", where)
    named = values.get("eos_token")
    if (named.get("content") if isinstance(named, dict) else named) == end:
        return data
    changed = values | {"eos_token": named | {"content": end} if isinstance(named, dict) else end}
    return (json.dumps(changed, ensure_ascii=False, indent=2) + "\n").encode("utf-8")
