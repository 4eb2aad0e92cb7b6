"""Measures training and decoding of a 7B decoder on one GPU, beside transformers (+ peft) where torch has CUDA.

  python -m benchmarks.gpu --part full --folder /tmp/mistral
  python -m benchmarks.gpu --part lora --folder /tmp/mistral
  python -m benchmarks.gpu --part decode --folder /tmp/mistral
  python -m benchmarks.gpu --part full --preset tiny

Random weights and random token ids, with lengths like those of chains: no dataset, tokenizer, TensorFlow or SeqIO is
needed. `full` tunes all weights with Adafactor, `lora` adapters with AdamW, on the same packed rows; `decode` writes
the same number of tokens after each prompt. --folder keeps the weights between commands. Prints JSON; exits with
status 1 where first losses, or logits where answers part, are further apart than the preset allows.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import generation_speed, machine, matrix_products, sides, training_comparison
from benchmarks.sides import Side, SideError
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig, load_config, validate
from coi_jax.data.batches import Batch, fill
from coi_jax.data.packing import pack
from coi_jax.data.row_shape import RowShape
from coi_jax.families.registry import PRESETS
from coi_jax.tokenizers.vocabulary import ByteVocabulary

CONFIG = Path(__file__).parent.parent / "configs" / "mistral_7b.py"
TINY = PRESETS["mistral"] | {
    "vocabulary_size": 259,
    "layers": 2,
    "model_dim": 64,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 16,
    "mlp_dim": 96,
    "attention_scale_dim": 16,
}
# What is compared in bfloat16 differs in the third digit, as do the sides from themselves in fp32.
SIZES: dict[str, dict[str, Any]] = {
    "mistral_7b": {
        "model": PRESETS["mistral_7b_v01"],
        "dtype": "bfloat16",
        "device": "cuda",
        "rows": 8,
        "length": 2048,
        "new_tokens": 256,
        "prompts": 64,
        "loss": 2e-2,
        "gap": 0.5,
    },
    "tiny": {
        "model": TINY,
        "dtype": "float32",
        "device": "cpu",
        "rows": 4,
        "length": 256,
        "new_tokens": 8,
        "prompts": 8,
        "loss": 1e-4,
        "gap": 1e-3,
    },
}
# Numbers of Mistral's tokens in the release's chains of two and three steps are about log-normal; a third is answers.
MEDIAN_LENGTH, LENGTH_SIGMA, ANSWER_SHARE = 230, 0.6, 0.35
# Tried in this order until one fits: what the backward pass finds kept, and the parts that a step's rows are taken in;
# for transformers, whether it checkpoints gradients, and the parts.
OUR_WAYS = [
    ("none", 1),
    ("dots_attention", 1),
    ("dots", 1),
    ("dots_attention", 2),
    ("projections", 1),
    ("attention", 1),
    ("attention", 2),
    ("full", 1),
    ("full", 4),
]
PEER_WAYS = [(False, 1), (False, 2), (False, 4), (True, 1), (True, 4)]
# For a side that has the accelerator to itself: otherwise JAX takes no more than three quarters of its memory.
ALONE = {"XLA_PYTHON_CLIENT_PREALLOCATE": "true", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "OutOfMemoryError", "out of memory")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(rest)
    if arguments.preset not in SIZES:
        raise UserError("preset", arguments.preset, f"one of {', '.join(SIZES)}")
    jax.config.update("jax_platforms", "cpu")  # of this process: the accelerator is the children's
    size = SIZES[arguments.preset]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        settings = prepare(run_config(size, arguments.part, overrides), size, folder, arguments.repeats + 1)
        part = decode if arguments.part == "decode" else tune
        report = part(settings, size, arguments.repeats)
    print(json.dumps({"benchmark": "gpu", "part": arguments.part} | machine.describe() | report, indent=2))
    return 0 if report["agree"] else 1


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--part", choices=("full", "lora", "decode"), required=True, help="what is measured")
    parser.add_argument("--preset", default="mistral_7b", help="mistral_7b; tiny runs on a CPU in seconds")
    parser.add_argument("--folder", default="", help="keeps the weights between commands; else a temporary one")
    parser.add_argument("--repeats", type=cli.integer, default=5, help="timed steps, or runs of decoding, of each side")
    return parser


def run_config(size: dict[str, Any], part: str, overrides: dict[str, Any]) -> RunConfig:
    """Return the config of this project's side: that of Mistral-7B, with the model of a size.

    Args:
      size: an entry of `SIZES`.
      part: "full", "lora" or "decode".
      overrides: of the command line.
    """
    model = {f"model.{name}": value for name, value in size["model"].items()} | {"model.dtype": size["dtype"]}
    fixed = {
        "data.batch": {"count": "tokens", "rows": size["rows"]},
        "data.length": size["length"],
        "optimizer.schedule": "constant",
        "optimizer.warmup_ratio": 0.0,
    }
    of_part = {
        "full": {"optimizer.name": "adafactor", "optimizer.options": {}, "optimizer.learning_rate": 1e-5},
        "lora": {"lora.base_dtype": size["dtype"]},
        "decode": {},
    }[part]
    config = f"{CONFIG}:lora" if part == "lora" else CONFIG
    return load_config(config, model | fixed | of_part | overrides)


def prepare(config: RunConfig, size: dict[str, Any], folder: Path, steps: int) -> dict[str, Any]:
    """Write batches, and weights where the folder has none yet; return the settings of both sides.

    Args:
      config: of this project's side.
      size: an entry of `SIZES`.
      folder: for weights and batches.
      steps: batches to write.
    """
    values = config.model_dump(mode="json")
    values["weights"]["folder"] = str(folder / "weights")
    settings = {
        "config": values,
        "folder": str(folder),
        "weights": str(folder / "weights"),
        "batches": str(folder / "batches.npz"),
        "device": size["device"],
        "adapters": str(folder / "adapters") if config.lora else "",
    }
    files.write_json(folder / "weights.json", settings)
    if not (folder / "weights" / "config.json").exists():
        with Side("benchmarks.random_weights", folder / "weights.json") as writer:
            writer.ask("draw")
    batches = synthetic_batches(config, steps)
    arrays = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    np.savez(folder / "batches.npz", allow_pickle=False, **arrays)
    return settings


def synthetic_batches(config: RunConfig, steps: int) -> list[Batch]:
    """Full packed rows of random ids, the fullest of those that twice as many examples give."""
    random = np.random.default_rng(config.seed)
    rows, length = config.data.batch.rows or 0, config.data.length
    wanted = 2 * steps * rows * length // MEDIAN_LENGTH
    lengths = np.exp(random.normal(np.log(MEDIAN_LENGTH), LENGTH_SIGMA, wanted)).astype(int).clip(16, length)
    examples = [random.integers(3, config.model.vocabulary_size, size).astype(np.int32) for size in lengths]
    cuts = [round(len(ids) * (1 - ANSWER_SHARE)) for ids in examples]
    packed = pack(lengths[:, None] - 1, [length])
    packed.sort(key=lambda row: -int((lengths[row] - 1).sum()))
    shape, nothing = RowShape(length, 0, 0), ByteVocabulary()  # of which only the pad id is looked at
    pairs = [[(examples[index][: cuts[index]], examples[index][cuts[index] :]) for index in row] for row in packed]
    return [fill(pairs[step * rows : (step + 1) * rows], shape, nothing) for step in range(steps)]


class Run(NamedTuple):
    """The result of a side: how it fitted into memory, each of its steps, and its device."""

    way: str
    steps: training_comparison.Steps
    device: dict[str, Any]


def tune(settings: dict[str, Any], size: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Let each side take the same steps, one side after the other: together they do not fit.

    Args:
      settings: of both sides.
      size: an entry of `SIZES`.
      repeats: timed steps.
    """
    runs = {"ours": first_that_fits("benchmarks.training_side_ours", our_ways(settings), repeats)}
    if not (missing := peer_obstacle(size["device"])):
        runs["peer"] = first_that_fits("benchmarks.training_side_peer", peer_ways(settings, size["rows"]), repeats)
    arrays = dict(np.load(settings["batches"]))
    batches = [{name: array[step] for name, array in arrays.items()} for step in range(repeats + 1)]
    counts = [training_comparison.count(batch) for batch in batches]
    report = training_comparison.summarise({name: run.steps for name, run in runs.items()}, counts, size["loss"])
    first = [losses[0] for losses in report["losses"].values()]  # later ones are of weights that differ a little
    work = matrix_products.operations(validate(settings["config"]), batches[1:])
    return report | {
        "first_losses_agree": bool(np.ptp(first) <= size["loss"]),
        "agree": bool(np.ptp(first) <= size["loss"]),
        "mfu": {name: mfu(run, work, runs["ours"].device["peak"]) for name, run in runs.items()},
        "way": {name: run.way for name, run in runs.items()},
        "peak_bytes": {name: run.steps[-1]["memory"] for name, run in runs.items()},
        "device": runs["ours"].device,
        "peer_missing": missing,
        "batches": counts,
    }


def our_ways(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings that take less and less memory."""
    config = settings["config"]
    return {
        f"remat {remat}, {parts} microbatches": settings
        | {
            "config": config
            | {"model": config["model"] | {"remat": remat}, "train": config["train"] | {"microbatches": parts}}
        }
        for remat, parts in OUR_WAYS
    }


def peer_ways(settings: dict[str, Any], rows: int) -> dict[str, dict[str, Any]]:
    """Settings that take less and less memory."""
    return {
        f"{'with' if checkpointing else 'without'} gradient checkpointing, {parts} microbatches": settings
        | {"recipe": "packed", "microbatch": rows // parts, "checkpointing": checkpointing}
        for checkpointing, parts in PEER_WAYS
    }


def first_that_fits(module: str, ways: dict[str, dict[str, Any]], repeats: int) -> Run:
    """Return the steps of a side, made in the first way that its memory holds.

    Args:
      module: of the side.
      ways: settings by description, tried in order.
      repeats: timed steps.

    Raises:
      UserError: it holds none.
    """
    for way, settings in ways.items():
        path = Path(settings["folder"]) / f"{module}.json"
        files.write_json(path, settings)
        try:
            with Side(module, path, ALONE) as side:
                steps = [side.ask("steps", first=step, count=1) for step in range(repeats + 1)]
                return Run(way, steps, side.ask("device"))
        except SideError as error:
            if not any(sign in str(error) for sign in OUT_OF_MEMORY):
                raise
    raise UserError(
        "config.data.batch.rows",
        settings["config"]["data"]["batch"]["rows"],
        f"{module} has no memory for it; take fewer",
    )


def peer_obstacle(device: str) -> str:
    """Why there is no peer here; "" where there is one."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return "torch or transformers is not installed"
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if device == "cuda" and subprocess.run([sys.executable, "-c", code], check=False).returncode:
        return "torch has no CUDA here"
    return ""


def mfu(run: Run, work: Sequence[float], peak: float) -> dict[str, float]:
    """Return the share of the device's matmul peak that the timed steps made use of.

    Args:
      run: of a side.
      work: floating-point operations of each step.
      peak: of the device, per second.
    """
    seconds = [step["seconds"] for step in run.steps[1:]]
    return sides.spread([each / time / peak for each, time in zip(work, seconds, strict=True)], 4)


def decode(settings: dict[str, Any], size: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Let both sides write the same number of tokens after each of a batch of prompts.

    Args:
      settings: of both sides.
      size: an entry of `SIZES`.
      repeats: timed runs.
    """
    random = np.random.default_rng(settings["config"]["seed"])
    lengths = np.exp(random.normal(np.log(MEDIAN_LENGTH), LENGTH_SIGMA, size["prompts"])).astype(int)
    most = settings["config"]["data"]["length"] // 2
    vocabulary_size = settings["config"]["model"]["vocabulary_size"]
    prompts = [random.integers(3, vocabulary_size, length).tolist() for length in lengths.clip(16, most)]
    missing = peer_obstacle(size["device"])
    given = {
        "model": settings["config"]["model"],
        "weights": settings["weights"],
        "device": settings["device"],
        "prompts": prompts,
        "ends": [],
        "max_new_tokens": size["new_tokens"],
    }
    names = ("ours",) if missing else ("ours", "peer")
    report = generation_speed.compare(given, Path(settings["folder"]), [size["prompts"]], repeats, size["gap"], names)
    return report | {"peer_missing": missing, "agree": report["answers_agree"]}


if __name__ == "__main__":
    sys.exit(cli.run(main))
