"""Write a published model's folder as a run, and a run as a folder that `transformers` or `peft` loads."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from coi_jax.common import files, hub
from coi_jax.common.errors import UserError
from coi_jax.common.progress import Bar
from coi_jax.common.seals import write_sealed
from coi_jax.common.storage import Folder, atomic_folder
from coi_jax.config.published_run import imported_config
from coi_jax.families.published_config import text_config
from coi_jax.families.registry import FAMILIES
from coi_jax.models import Network, build
from coi_jax.parallel.sharding import path_name
from coi_jax.runs import checkpoint, streamed_checkpoint
from coi_jax.runs.early_checks import CONFIG as RUN_CONFIG
from coi_jax.runs.finite import cast_finite
from coi_jax.runs.run_folder import RunFolder, keep_vocabulary
from coi_jax.runs.streamed_checkpoint import Streamed
from coi_jax.tokenizers.vocabulary import load_vocabulary
from coi_jax.weights import peft, publish
from coi_jax.weights.hf_names import ParameterMapping, parameter_mappings
from coi_jax.weights.initial_weights import PretrainedWeights, open_weights
from coi_jax.weights.safetensors_files import Tensor
from coi_jax.weights.sources import CONFIG, WeightSource, is_run


def export_adapters(run: RunFolder, out: str) -> None:
    """Write the adapters of a run's newest checkpoint; raise UserError where it has none."""
    config = run.load_config()
    network = build(config.model, run.load_vocabulary().size, config.lora)
    if network.lora is None:
        raise UserError("src", run.path, "trained all weights; leave --adapters out")
    published = run.published / CONFIG
    if published.exists() and FAMILIES[text_config(files.read_object(published))["model_type"]].fused_keys:
        hint = "holds several projections in one tensor, which adapters here do not fit; leave --adapters out"
        raise UserError("src", config.weights.folder, hint)
    adapters = checkpoint.restore_params(run.checkpoints, network)
    begins_from = config.weights.folder
    base = begins_from if begins_from and not is_run(begins_from) else ""  # peft knows no runs
    base = hub.parse(base, "config.weights.folder").name if hub.is_hub(base) else base
    with atomic_folder(out, marker=peft.CONFIG) as folder:
        peft.export(folder, network, adapters, base)


def export_model(run: RunFolder, out: str, dtype: np.dtype | None, max_shard_bytes: int) -> None:
    """Write the newest checkpoint of a run as a published folder, with adapters merged in.

    Args:
      run: the run to export.
      out: a new folder.
      dtype: the dtype of all tensors; that of the checkpoint where None.
      max_shard_bytes: the limit of a tensor file, unless one tensor alone is larger.

    Raises:
      UserError: the run has no checkpoint, or no published family computes what its network does.
    """
    network = build(run.load_config().model, run.load_vocabulary().size)
    publish.write(out, run, network, open_weights(str(run.path), network, "src"), dtype, max_shard_bytes)


def import_model(
    source: Folder, out: str, config_file: str, overrides: Mapping[str, Any], dtype: np.dtype | None = None
) -> None:
    """Write a published folder as a run that has taken no step.

    Args:
      source: the published folder.
      out: the new run folder.
      config_file: the config of the run, but for its model and tokenizer.
      overrides: dotted fields of it to change.
      dtype: the dtype of the checkpoint; that of the published tensors where None.

    Raises:
      UserError: no network here computes what the folder holds, it is incomplete, or a field of the config is wrong.
    """
    config = imported_config(source, config_file, overrides)
    network = build(config.model, load_vocabulary(config).size)
    with atomic_folder(out, marker=RUN_CONFIG) as folder:
        run = RunFolder(folder)
        write_sealed(run.config, config.model_dump(mode="json"))
        keep_vocabulary(run, config)
        pretrained = PretrainedWeights(run, network, config.seed, source.url, source.field)
        data = {"sha256": None} | pretrained.record()
        write_checkpoint(run, network, pretrained.open(), dtype)
        write_sealed(run.environment, {"converted_from": source.url, "data": data})


def write_checkpoint(run: RunFolder, network: Network, source: WeightSource, dtype: np.dtype | None) -> None:
    """Write weights as the checkpoint of step 0, a layer at a time.

    Args:
      run: the run to write to.
      network: the network that the weights are for.
      source: the weights.
      dtype: the dtype of all parameters; each one's own where None.

    Raises:
      UserError: a tensor holds NaN or infinity, or numbers that are too large for the dtype.
    """
    abstract = network.abstract()
    mappings = parameter_mappings(network.config, abstract)
    with Bar("writing tensors", sum(len(mapping.keys) for mapping in mappings.values())) as bar:

        def read(mapping: ParameterMapping, number: int) -> Tensor:
            bar.advance(note=mapping.path)
            kept = dtype or source.dtype(mapping)
            return cast_finite(source.layer(mapping, number), kept, mapping.keys[number])

        def leaf(path: tuple[Any, ...], like: jax.ShapeDtypeStruct) -> Streamed:
            mapping = mappings[path_name(path)]
            kept = dtype or source.dtype(mapping)
            return Streamed(like.shape, kept, len(mapping.keys), functools.partial(read, mapping))

        step = run.checkpoints / "0"
        step.mkdir(parents=True)
        arrays = streamed_checkpoint.write(step / "params", jax.tree_util.tree_map_with_path(leaf, abstract))
    checkpoint.write_position(run.checkpoints, 0, {"total_steps": 0, "loader": "", checkpoint.ARRAYS: arrays})
