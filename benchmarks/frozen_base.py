"""Measures what it costs to hold frozen weights in fewer bytes: the same run as float32, bfloat16 and int8.

  python -m benchmarks.frozen_base --workdir runs/coi12 --tasks proc2_test --limit 200

Prints JSON for each: bytes of the parameters; the loss of a target token on the test sets; the error of the logits
there (root mean square, in units of the logits' standard deviation); the share of target tokens whose most likely
token is that of float32. What computes is the network that LoRA trains beside such a base, with adapters that add
nothing.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from coi_jax.common import cli
from coi_jax.config.model import LoraConfig
from coi_jax.config.run import RunConfig
from coi_jax.data import token_cache
from coi_jax.data.batches import Batch, fill
from coi_jax.data.row_shape import RowShape
from coi_jax.data.task_specs import evaluation_task
from coi_jax.models import Network, Params, build
from coi_jax.runs import checkpoint
from coi_jax.runs.run_folder import RunFolder
from coi_jax.tokenizers.protocol import Vocabulary

ROWS = 32  # of a batch


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run folder, of python -m coi_jax.train, without adapters")
    parser.add_argument("--tasks", default="", help="test sets, with commas; else the config's evaluation.tests")
    parser.add_argument("--limit", type=cli.integer, default=200, help="examples of each test set")
    arguments = parser.parse_args(argv)
    run = RunFolder(Path(arguments.workdir))
    config, vocabulary = run.load_config(), run.load_vocabulary()
    names = arguments.tasks.split(",") if arguments.tasks else config.evaluation.tests
    batches = read(config, run, vocabulary, names, arguments.limit)
    network = build(config.model, vocabulary.size)
    params = checkpoint.restore_params(run.checkpoints, network)
    print(json.dumps({"run": str(run.path), "tasks": list(names)} | compare(network, params, batches), indent=2))
    return 0


def read(config: RunConfig, run: RunFolder, vocabulary: Vocabulary, names: Sequence[str], limit: int) -> list[Batch]:
    """Return the first examples of some test sets that fit a row, each in a row of its own.

    Args:
      config: of the run.
      run: its folder.
      vocabulary: of the run.
      names: of test sets.
      limit: examples of each.
    """
    kept = run.vocabulary if run.vocabulary.is_file() else None
    caches = token_cache.open_or_write(config, [evaluation_task(config, name) for name in names], kept)
    begins = int(config.model.kind == "decoder" and vocabulary.bos_id is not None)
    shape = RowShape(config.data.length, config.data.targets_length or 0, begins)
    pairs = [
        pair
        for tokens in caches
        for pair, fits in zip(
            tokens.ids(range(min(limit, len(tokens)))), shape.fit(tokens.lengths, "drop").kept, strict=False
        )
        if fits
    ]
    rows = [[pair] for pair in pairs]
    return [fill(rows[start : start + ROWS], shape, vocabulary) for start in range(0, len(rows), ROWS)]


def compare(network: Network, params: Params, batches: Sequence[Batch]) -> dict[str, Any]:
    """Return what each way of holding the parameters gives, beside float32.

    Args:
      network: without adapters.
      params: in float32.
      batches: of examples with targets.
    """
    found: dict[str, Any] = {}
    exact = None
    for base_dtype in ("float32", "bfloat16", "int8"):
        lora = LoraConfig(
            rank=1, alpha=1.0, targets="attention.query", dropout=0.0, rank_stabilized=False, base_dtype=base_dtype
        )
        held = dataclasses.replace(network, lora=lora)
        adapters, _ = held.split(held.init(jax.random.key(0)))
        base = jax.jit(held.cast_base)(params)
        logits = jax.jit(held.logits)
        ours = [at_targets(logits(held.join(adapters, base), batch), batch) for batch in batches]
        exact = exact or ours
        found[base_dtype] = {"bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(base))} | errors(ours, exact, batches)
    return found


def at_targets(logits: Array, batch: Batch) -> Float[np.ndarray, "targets vocabulary"]:
    """Return the logits of all positions that count."""
    counted: np.ndarray = np.asarray(logits.astype(jnp.float32))[batch["weights"] == 1]
    return counted


def errors(ours: list[np.ndarray], exact: list[np.ndarray], batches: Sequence[Batch]) -> dict[str, float]:
    """Return the loss, and how far the logits are from those of float32.

    Args:
      ours: logits of the held parameters.
      exact: logits of float32.
      batches: that they are of.
    """
    logits, expected = np.concatenate(ours), np.concatenate(exact)
    targets = np.concatenate([batch["targets"][batch["weights"] == 1] for batch in batches])
    likelihoods = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(targets)), targets]
    return {
        "loss": float(-likelihoods.mean()),
        "logit_error": float(np.sqrt(np.mean((logits - expected) ** 2)) / expected.std()),
        "same_most_likely": float(np.mean(logits.argmax(-1) == expected.argmax(-1))),
        "targets": len(targets),
    }


if __name__ == "__main__":
    sys.exit(cli.run(main))
