"""Measures training beside transformers and Tunix: same weights, same examples, losses compared, steps taken in turns.

  python -m benchmarks.training_speed --data data/release
  python -m benchmarks.training_speed --data data/release --repeats 3 --config.data.batch.rows=16
  python -m benchmarks.training_speed --data data/release --tunix ../tunix_env/bin/python --peers packed
  python -m benchmarks.training_speed --data data/release --lora 16

The contestants take the same steps, three at a time, each in a process of its own: this project on packed rows;
transformers on the same packed rows, and padded as the paper's trainer pads (batches of 4, each to its longest) with
its gradients accumulated over the same examples; and Google's Tunix on the same packed rows, where --tunix names the
Python of an environment that has it. With --lora all train adapters, transformers by peft. The first step of each is
not timed. How fast XLA multiplies matrices of the model's sizes is measured in the same turns: `products` has the time
of a step's useful products alone, `seconds_over_products` how many times as long each contestant took. Prints JSON;
exits with status 1 where the losses of any step differ by more than --tolerance.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, random_weights, training_comparison
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.config.model import DecoderConfig
from coi_jax.config.run import RunConfig, load_config, validate
from coi_jax.data import token_cache
from coi_jax.data.loader import Loader
from coi_jax.data.task_specs import training_tasks
from coi_jax.tokenizers.vocabulary import load_vocabulary
from configs import base

CHAINS = (2, 3)  # the lengths of the chains that are read
# About 30M parameters with the config's vocabulary.
DECODER = {
    "model.layers": 8,
    "model.model_dim": 512,
    "model.heads": 8,
    "model.kv_heads": 8,
    "model.head_dim": 64,
    "model.attention_scale_dim": 64,
    "model.mlp_dim": 1376,
}
TUNIX_THETA = 1e6  # of the rotary positions in Tunix's Llama, whatever its config says
# One rate for all steps; whole examples of at most a row, cut where the paper's trainer cuts.
FIXED = {
    "arm": "coi123",
    "optimizer.learning_rate": 2e-5,
    "optimizer.schedule": "constant",
    "optimizer.warmup_ratio": 0.0,
    "data.batch.count": "tokens",
    "data.batch.rows": 8,
    "data.length": 512,
    "data.overlong": "cut_targets",
    "train.microbatches": 1,
    "model.rope.theta": TUNIX_THETA,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--data", required=True, help="dataset folder, of python -m data_pipeline.release")
    parser.add_argument("--config", default="configs/release.py", help="what DECODER and FIXED change, and --config.*")
    parser.add_argument("--repeats", type=cli.integer, default=8, help="timed steps of each contestant")
    parser.add_argument("--tolerance", type=cli.number, default=1e-4, help="how far losses may differ")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=training_comparison.RECIPES,
        default=training_comparison.RECIPES,
        help="recipes of transformers",
    )
    parser.add_argument("--tunix", default="", metavar="PYTHON", help="interpreter of an environment with google-tunix")
    parser.add_argument("--lora", type=cli.positive_int, metavar="RANK", help="train adapters of this rank, in float32")
    arguments = parser.parse_args(rest)
    config = load_config(arguments.config, fixed(arguments.data, arguments.lora) | overrides)
    if arguments.tunix:
        check_tunix(config, arguments.tunix)
    with tempfile.TemporaryDirectory() as folder:
        settings, data = prepare(config, Path(folder), arguments.repeats + 1)
        report = training_comparison.compare(
            settings, data["batches"], arguments.tolerance, arguments.peers, arguments.tunix
        )
    print(json.dumps({"benchmark": "train"} | machine.describe() | data | report, indent=2))
    return 0 if report["losses_agree"] else 1


def fixed(data: str, rank: int | None) -> dict[str, Any]:
    """Return what the command sets in a config, unless the user does.

    Args:
      data: the dataset folder.
      rank: of adapters; None where all weights are trained.
    """
    lora = {"lora": base.lora(rank).to_dict() | {"base_dtype": "float32"}} if rank else {}
    return DECODER | FIXED | {"data.folder": data} | lora


def check_tunix(config: RunConfig, python: str) -> None:
    """Check that Tunix can take the steps of a config.

    Raises:
      UserError: it cannot, or there is no such interpreter.
    """
    if shutil.which(python) is None:
        raise UserError("tunix", python, "name the Python of an environment with google-tunix (benchmarks/README.md)")
    if config.lora:
        raise UserError("lora", config.lora.rank, "leave out --tunix, which is measured without adapters")
    if config.optimizer.name != "adamw":
        raise UserError("config.optimizer.name", config.optimizer.name, "take adamw, or leave out --tunix")
    theta = config.model.rope.theta if isinstance(config.model, DecoderConfig) else None
    if theta != TUNIX_THETA:
        raise UserError("config.model.rope.theta", theta, f"take {TUNIX_THETA:g}, as Tunix does, or leave out --tunix")


def prepare(config: RunConfig, folder: Path, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write weights and batches for both sides; return their settings, and what is to be said of the data.

    Args:
      config: of this project's side.
      folder: for weights and batches.
      steps: batches to write.
    """
    wanted = [task for task in training_tasks(config) if task.length in CHAINS]
    caches = token_cache.open_or_write(config, wanted)
    vocabulary = load_vocabulary(config)
    loader = Loader(config, caches, vocabulary)
    batches = [loader.batch(step) for step in range(steps)]
    arrays = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    np.savez(folder / "batches.npz", allow_pickle=False, **arrays)
    values = config.model_dump(mode="json")
    values["model"]["vocabulary_size"] = config.model.vocabulary_size or vocabulary.size
    values["weights"]["folder"] = str(folder / "weights")
    settings = {
        "config": values,
        "folder": str(folder),
        "weights": str(folder / "weights"),
        "batches": str(folder / "batches.npz"),
        "adapters": str(folder / "adapters") if config.lora else "",
        "device": "cpu",
        "checkpointing": False,
    }
    return settings, {
        "parameters": random_weights.draw(validate(values), folder / "weights"),
        "model": values["model"],
        "rows": config.data.batch.rows,
        "length": config.data.length,
        "lora": values["lora"],
        "batches": [training_comparison.count(batch) for batch in batches],
    }


if __name__ == "__main__":
    sys.exit(cli.run(main))
