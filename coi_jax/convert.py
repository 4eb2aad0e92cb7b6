"""Turns a published model's folder into a run, and a run into a folder that `transformers` loads.

  python -m coi_jax.convert --src models/mistral-7b --out runs/base --config configs/release.py
  python -m coi_jax.convert --src runs/coi12 --out models/coi12 --dtype bfloat16
  python -m coi_jax.convert --src runs/lora --out models/lora --adapters

What --src is decides which. A new run has the model, the weights and the tokenizer of the folder, and all else from
--config (--config.FIELD=VALUE as ever): it can be evaluated, and training can begin from it (config.weights.folder).
A run's adapters are folded into their base, unless --adapters asks for them alone. Both folders may be in a
bucket (gs://…). One tensor is in memory at a time.
"""

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.common.progress import Bar
from coi_jax.common.storage import Folder, atomic_folder
from coi_jax.config.model import model_section
from coi_jax.config.run import RunConfig, load_config, validate
from coi_jax.models import Network, build
from coi_jax.parallel.processes import start_jax
from coi_jax.parallel.sharding import path_name
from coi_jax.runs import checkpoint, run_folder, streamed_checkpoint
from coi_jax.runs.run_folder import RunFolder, keep_vocabulary
from coi_jax.runs.streamed_checkpoint import Streamed
from coi_jax.weights import peft, publish
from coi_jax.weights.hf_config import from_hf_config
from coi_jax.weights.hf_names import ParameterMapping, parameter_mappings
from coi_jax.weights.initial_weights import PretrainedWeights, open_weights
from coi_jax.weights.safetensors_files import Tensor
from coi_jax.weights.sources import CONFIG, WeightSource, is_run

DTYPES = ("float32", "bfloat16", "float16")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model")
GIGABYTE = 10**9


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(rest)
    if arguments.shard_gb <= 0:
        raise UserError("shard_gb", arguments.shard_gb, "give more than 0")
    start_jax()
    dtype = jnp.dtype(arguments.dtype) if arguments.dtype else None
    run = RunFolder(arguments.src)
    if arguments.adapters:
        export_adapters(run, arguments.out)
        print(f"wrote {arguments.out}; next: peft.PeftModel.from_pretrained(model, {arguments.out!r})")
    elif is_run(arguments.src):
        export_model(run, arguments.out, dtype, int(arguments.shard_gb * GIGABYTE))
        print(f"wrote {arguments.out}; next: AutoModel.from_pretrained({arguments.out!r})")
    else:
        import_model(Folder(arguments.src, "src"), arguments.out, arguments.config, overrides, dtype)
        print(f"wrote {arguments.out}; next: python -m coi_jax.evaluate --workdir {arguments.out}")
    return 0


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--src", required=True, help="published folder (safetensors), or run folder")
    parser.add_argument("--out", required=True, help="new folder; it appears when it is whole")
    parser.add_argument("--dtype", choices=DTYPES, default="", help="of what is written; else as it is in --src")
    parser.add_argument("--config", default="configs/release.py", help="a new run's config, but for its model")
    parser.add_argument("--shard_gb", type=float, default=5.0, help="gigabytes of a tensor file, at most")
    parser.add_argument("--adapters", action="store_true", help="write a run's adapters alone, as peft reads them")
    return parser


def export_adapters(run: RunFolder, out: str) -> None:
    """Write the adapters of a run's newest checkpoint; raise UserError where it has none."""
    config = run.load_config()
    network = build(config.model, run.load_vocabulary().size, config.lora)
    if network.lora is None:
        raise UserError("src", run.path, "trained all weights; leave --adapters out")
    adapters = checkpoint.restore_params(run.checkpoints, network)
    begins_from = config.weights.folder
    base = begins_from if begins_from and not is_run(begins_from) else ""  # peft knows no runs
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
    with atomic_folder(out, marker=run_folder.CONFIG) as folder:
        run = RunFolder(folder)
        files.write_json(run.config, config.model_dump(mode="json"))
        keep_vocabulary(run, config)
        network = build(config.model, run.load_vocabulary().size)
        pretrained = PretrainedWeights(run, network, config.seed, source.url, source.field)
        data = {"sha256": None} | pretrained.record()
        write_checkpoint(run, network, pretrained.open(), dtype)
        files.write_json(run.environment, {"converted_from": source.url, "data": data})


def imported_config(source: Folder, config_file: str, overrides: Mapping[str, Any]) -> RunConfig:
    """Return the config of a new run: a file's, with the model and the tokenizer of a published folder.

    Args:
      source: the published folder.
      config_file: the config file.
      overrides: dotted fields of it to change.
    """
    values = load_config(config_file, overrides).model_dump(mode="json")
    network = from_hf_config(source.read_json(CONFIG))
    of_the_run = set(model_section(network).model_fields) - set(network)
    values["model"] = {name: values["model"][name] for name in of_the_run} | network
    values["model"]["scan_unroll"] = min(values["model"]["scan_unroll"], network["layers"])
    data = values["data"]
    data["targets_length"] = (data["targets_length"] or data["length"]) if network["kind"] == "t5" else None
    if set(source.names()) & set(TOKENIZERS):
        values["vocabulary"] = {"kind": "tokenizer", "folder": source.url}
    values["lora"], values["weights"]["folder"] = None, None
    values["arm"] = values["arm"] if "arm" in overrides else "base"  # it was tuned on no chains
    return validate(values)


def write_checkpoint(run: RunFolder, network: Network, source: WeightSource, dtype: np.dtype | None) -> None:
    """Write weights as the checkpoint of step 0, a layer at a time.

    Args:
      run: the run to write to.
      network: the network that the weights are for.
      source: the weights.
      dtype: the dtype of all parameters; each one's own where None.
    """
    abstract = network.abstract()
    mappings = parameter_mappings(network.config, abstract)
    with Bar("writing tensors", sum(len(mapping.keys) for mapping in mappings.values())) as bar:

        def read(mapping: ParameterMapping, number: int) -> Tensor:
            bar.advance(note=mapping.path)
            return source.layer(mapping, number)

        def leaf(path: tuple[Any, ...], like: jax.ShapeDtypeStruct) -> Streamed:
            mapping = mappings[path_name(path)]
            kept = dtype or source.dtype(mapping)
            return Streamed(like.shape, kept, len(mapping.keys), functools.partial(read, mapping))

        step = run.checkpoints / "0"
        step.mkdir(parents=True)
        streamed_checkpoint.write(step / "params", jax.tree_util.tree_map_with_path(leaf, abstract))
    checkpoint.write_position(run.checkpoints, 0, {"total_steps": 0, "loader": ""})


def command() -> int:
    """Run the command `coi-convert`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
