"""Measures generation beside transformers: same weights, same prompts, greedy, answers compared token by token.

  python -m benchmarks.generation_speed --workdir runs/release/coi12 --tasks coi2_test --limit 128

Both sides answer the prompts of a trained run's test set in turn, each in a process of its own, until the end id or
--config.evaluation.max_new_tokens. Each takes the fastest of the --batches; transformers sorts prompts by length and
pads on the left. What is timed ran once before. Prints JSON. Greedy choices between equal logits may fall either way:
exits with status 1 where answers part at logits that are further apart than --tolerance.
"""

import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, random_weights, sides
from benchmarks.sides import Side
from coi_jax.common import cli, files
from coi_jax.data import token_cache
from coi_jax.data.task_specs import evaluation_task
from coi_jax.inference.model import Model, load_model
from coi_jax.parallel.processes import start_jax
from coi_jax.weights import conversion

NO_TOKEN = -1  # in the place of an end, where no token is one
Answers = list[list[int]]  # token ids, of each prompt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run folder, of python -m coi_jax.train")
    parser.add_argument("--tasks", default="coi2_test", help="test sets, with commas")
    parser.add_argument("--limit", type=cli.integer, help="take only the first so many examples of each test set")
    parser.add_argument("--batches", default="16,64", help="batch sizes that both sides try, with commas")
    parser.add_argument("--repeats", type=cli.integer, default=3, help="timed runs of each side")
    parser.add_argument(
        "--tolerance", type=cli.number, default=1e-3, help="how far logits may differ where answers part"
    )
    arguments = parser.parse_args(rest)
    start_jax()
    model = load_model(Path(arguments.workdir), overrides)
    batches = [int(batch) for batch in arguments.batches.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        settings = prepare(model, Path(folder), arguments.tasks.split(","), arguments.limit)
        report = compare(settings, Path(folder), batches, arguments.repeats, arguments.tolerance)
    run = {"run": arguments.workdir, "checkpoint": model.checkpoint, "tasks": arguments.tasks}
    print(json.dumps({"benchmark": "generate"} | machine.describe() | run | report, indent=2))
    return 0 if report["answers_agree"] else 1


def prepare(model: Model, folder: Path, tasks: Sequence[str], limit: int | None) -> dict[str, Any]:
    """Write the weights for both sides; return their settings.

    Args:
      model: that is measured.
      folder: for weights and settings.
      tasks: names of test sets.
      limit: prompts of each.
    """
    specs = [evaluation_task(model.config, name) for name in tasks]
    prompts = []
    for tokens in token_cache.open_or_write(model.config, specs, model.kept_vocabulary):
        examples = [tokens[index] for index in range(min(len(tokens), limit or len(tokens)))]
        prompts += [model.prompt(example.chain.id, example.inputs).tokens.tolist() for example in examples]
    conversion.export_model(model.run, str(folder / "weights"), None, random_weights.LARGEST_FILE)
    config = model.config.model
    values = config.model_dump(mode="json") | {"vocabulary_size": config.vocabulary_size or model.vocabulary.size}
    return {
        "model": values,
        "weights": str(folder / "weights"),
        "prompts": prompts,
        "device": "cpu",
        "ends": list(model.vocabulary.stop_ids),
        "max_new_tokens": model.config.evaluation.max_new_tokens,
    }


def compare(
    settings: dict[str, Any],
    folder: Path,
    batches: Sequence[int],
    repeats: int,
    tolerance: float,
    names: Sequence[str] = ("ours", "peer"),
) -> dict[str, Any]:
    """Let the sides answer in turn, and set their speeds and answers side by side.

    Args:
      settings: of both sides.
      folder: for their settings files.
      batches: prompts generated together.
      repeats: timed runs.
      tolerance: largest gap of logits where answers part.
      names: of the sides.
    """
    files.write_json(folder / "generate.json", settings)
    with contextlib.ExitStack() as stack:
        contestants = {
            name: stack.enter_context(Side(f"benchmarks.generation_side_{name}", folder / "generate.json"))
            for name in names
        }
        sides.all_ask(list(contestants.values()), sides.READY)
        tried = {name: [_seconds(side, batch) for batch in batches] for name, side in contestants.items()}
        best = {name: batches[seconds.index(min(seconds))] for name, seconds in tried.items()}
        taken: dict[str, list[Any]] = {name: [] for name in contestants}
        for _ in range(repeats):
            for name, side in contestants.items():
                taken[name].append(side.ask("generate", batch=best[name]))
        answers = {name: runs[0]["tokens"] for name, runs in taken.items()}
        end = [*settings["ends"], NO_TOKEN][0]
        gaps = parting_gaps(contestants["peer"], answers["ours"], answers["peer"], end) if "peer" in names else []
    seconds = {name: [run["seconds"] for run in runs] for name, runs in taken.items()}
    tries = {name: dict(zip(map(str, batches), found, strict=True)) for name, found in tried.items()}
    return (
        {
            "prompt_tokens": sides.spread([len(prompt) for prompt in settings["prompts"]], 0),
            "max_new_tokens": settings["max_new_tokens"],
            "batch": best,
            "seconds_by_batch": tries,
        }
        | speeds(seconds, answers, settings["max_new_tokens"])
        | agreement(answers, gaps, tolerance)
    )


def _seconds(side: Side, batch: int) -> float:
    """Return the seconds of a run whose programs are compiled."""
    side.ask("generate", batch=batch)
    return float(side.ask("generate", batch=batch)["seconds"])


def parting_gaps(peer: Side, ours: Answers, theirs: Answers, eos_id: int) -> list[float]:
    """For each prompt whose answers differ: how far apart the peer's logits of the two tokens are where they part.

    Args:
      peer: the side that is asked for logits.
      ours: answers of this project.
      theirs: answers of the peer.
      eos_id: that ends an answer.
    """
    prefixes, tokens = [], []
    for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        if left != right:
            left, right = [*left, eos_id], [*right, eos_id]
            place = next(place for place, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1])
            prefixes.append((index, left[:place]))
            tokens.append((left[place], right[place]))
    found: list[float] = peer.ask("gaps", prefixes=prefixes, tokens=tokens)
    return found


def speeds(seconds: dict[str, list[float]], answers: dict[str, Answers], limit: int) -> dict[str, Any]:
    """Examples and new tokens a second of both sides, and the ratio of their times run by run.

    Args:
      seconds: of each run, by side.
      answers: of each side.
      limit: new tokens per answer.
    """
    written = {name: sum(map(len, found)) for name, found in answers.items()}
    lengths = [len(answer) for answer in answers["ours"]]
    return {
        "examples": len(lengths),
        "answer_tokens": sides.spread(lengths, 0),
        "answers_at_limit": sum(length == limit for length in lengths),
        "examples_per_second": {
            name: sides.spread([len(lengths) / each for each in times]) for name, times in seconds.items()
        },
        "tokens_per_second": {
            name: sides.spread([written[name] / each for each in times], 1) for name, times in seconds.items()
        },
        "ratio": {
            name: sides.spread([theirs / mine for theirs, mine in zip(times, seconds["ours"], strict=True)])
            for name, times in seconds.items()
            if name != "ours"
        },
    }


def agreement(answers: dict[str, Answers], gaps: Sequence[float], tolerance: float) -> dict[str, Any]:
    """Return how many answers are the same, and where others part, how far the choice was from a tie.

    Args:
      answers: of each side.
      gaps: of logits, where answers part.
      tolerance: largest gap that counts as a tie.
    """
    equal = [all(answer == same[0] for answer in same) for same in zip(*answers.values(), strict=True)]
    return {
        "equal_answers": sum(equal),
        "parting_gaps": [round(gap, 6) for gap in sorted(gaps, reverse=True)],
        "answers_agree": all(gap <= tolerance for gap in gaps),
    }


if __name__ == "__main__":
    sys.exit(cli.run(main))
