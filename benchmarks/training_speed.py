"""Measures training beside transformers: same weights, same examples, losses compared, steps taken in turns.

  python -m benchmarks.training_speed --data data/release
  python -m benchmarks.training_speed --data data/release --repeats 3 --config.data.batch.rows=16

Three contestants take the same steps, three at a time: this project on packed rows, and in another process transformers
on the same packed rows, and padded as the paper's trainer pads (batches of 4, each to its longest) with its gradients
accumulated over the same examples. The first step of each is not timed. Prints JSON; exits with status 1 where the
losses of any step differ by more than --tolerance.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, random_weights, sides
from benchmarks.sides import Side
from coi_jax.common import cli, files
from coi_jax.config.run import RunConfig, load_config, validate
from coi_jax.data import token_cache
from coi_jax.data.loader import Loader
from coi_jax.data.task_specs import training_tasks
from coi_jax.tokenizers.vocabulary import load_vocabulary

CHAINS = (2, 3)  # the lengths of the chains that are read
TURN = 3  # steps that a contestant takes in a row: after the others' turns the memory of the first is cold
PADDED_BATCH = 4  # examples in a microbatch of the paper's trainer
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
}
ATTENTIONS = ["sdpa", "eager"]  # of transformers; the faster is measured
Steps = list[dict[str, Any]]  # what a contestant gave for each step


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--data", required=True, help="dataset folder, of python -m data_pipeline.release")
    parser.add_argument("--config", default="configs/release.py", help="what DECODER and FIXED change, and --config.*")
    parser.add_argument("--repeats", type=int, default=8, help="timed steps of each contestant")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="how far losses may differ")
    arguments = parser.parse_args(rest)
    config = load_config(arguments.config, DECODER | FIXED | {"data.folder": arguments.data} | overrides)
    with tempfile.TemporaryDirectory() as folder:
        settings, data = prepare(config, Path(folder), arguments.repeats + 1)
        report = machine.describe() | data | compare(settings, data["batches"], arguments.tolerance)
    print(json.dumps({"benchmark": "train"} | report, indent=2))
    return 0 if report["losses_agree"] else 1


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
        "adapters": "",
        "device": "cpu",
        "recipes": {"packed": config.data.batch.rows, "padded": PADDED_BATCH},
        "checkpointing": False,
    }
    return settings, {
        "parameters": random_weights.draw(validate(values), folder / "weights"),
        "model": values["model"],
        "rows": config.data.batch.rows,
        "length": config.data.length,
        "batches": [count(batch) for batch in batches],
    }


def count(batch: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Examples of a packed batch, their tokens (the last one of each is predicted, not read), and the answers' own."""
    examples = int(batch["segments"].max(1).sum())
    return {
        "examples": examples,
        "tokens": int((batch["segments"] > 0).sum()) + examples,
        "target_tokens": int(batch["weights"].sum()),
    }


def compare(settings: dict[str, Any], counts: list[dict[str, int]], tolerance: float) -> dict[str, Any]:
    """Let the contestants take their steps in turn, and set their speeds and losses side by side.

    Args:
      settings: of both sides.
      counts: of tokens in each batch.
      tolerance: largest difference of losses.
    """
    path = Path(settings["folder"]) / "train.json"
    files.write_json(path, settings)
    with Side("benchmarks.training_side_ours", path) as ours, Side("benchmarks.training_side_peer", path) as peer:
        sides.all_ask([ours, peer], sides.READY)
        contestants = {
            "ours": (ours, {}),
            "peer_packed": (peer, {"recipe": "packed"}),
            "peer_padded": (peer, {"recipe": "padded"}),
        }
        attention = {
            name: side.ask("choose_attention", names=ATTENTIONS, **which)
            for name, (side, which) in contestants.items()
            if side is peer
        }
        taken: dict[str, Steps] = {name: [] for name in contestants}
        for start in range(0, len(counts), TURN):
            for name, (side, which) in contestants.items():
                turn = range(start, min(start + TURN, len(counts)))
                taken[name] += [side.ask("steps", first=step, count=1, **which) for step in turn]
    positions = sum(step["positions"] for step in taken["peer_padded"])
    useful = round(sum(each["tokens"] for each in counts) / positions, 4)
    return {"seconds_by_attention": attention, "useful_share_when_padded": useful} | summarise(taken, counts, tolerance)


def summarise(taken: dict[str, Steps], counts: list[dict[str, int]], tolerance: float) -> dict[str, Any]:
    """Speeds of the timed steps, ratios step by step, and how far the losses of all steps differ.

    Args:
      taken: steps of each contestant.
      counts: of tokens in each batch.
      tolerance: largest difference of losses.
    """
    seconds = {name: [step["seconds"] for step in steps[1:]] for name, steps in taken.items()}
    losses = {name: [step["losses"][0] for step in steps] for name, steps in taken.items()}
    apart = np.ptp(np.array(list(losses.values())), axis=0)

    def speeds(name: str, kind: str) -> dict[str, float]:
        return sides.spread([each[kind] / time for each, time in zip(counts[1:], seconds[name], strict=True)], 1)

    def ratio(name: str) -> dict[str, float]:
        return sides.spread([theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True)])

    return {
        "tokens_per_second": {name: speeds(name, "tokens") for name in taken},
        "target_tokens_per_second": {name: speeds(name, "target_tokens") for name in taken},
        "ratio": {name: ratio(name) for name in taken if name != "ours"},
        "losses": losses,
        "largest_loss_difference": float(apart.max()),
        "losses_agree": bool(apart.max() <= tolerance),
    }


if __name__ == "__main__":
    sys.exit(cli.run(main))
