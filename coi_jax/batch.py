"""Print the examples that a step of a training sees: which share a row, their texts and their ids.

  python -m coi_jax.batch --config configs/quickstart.py --step 10
  python -m coi_jax.batch --workdir runs/coi12 --step 2730 --json

Steps count from 1, as in metrics.jsonl and in errors. They follow from config and seed alone: the same examples on
every machine, before a training, during it, and after it. Token caches are written where they are missing.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coi_jax.common import cli
from coi_jax.common.errors import UserError

if TYPE_CHECKING:
    from coi_jax.data.loader import Loader, PlacedExample


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", help="config file; --config.field=value too")
    parser.add_argument("--workdir", help="run folder, instead: its config and its vocabulary")
    parser.add_argument("--step", type=cli.positive_int, required=True, help="the first one is 1")
    parser.add_argument("--json", action="store_true", help="print an example on each line, with its ids, for programs")
    arguments = parser.parse_args(rest)
    if (arguments.config is None) == (arguments.workdir is None):
        parser.error("give --config FILE or --workdir DIR")
    loader = _open(arguments.config, arguments.workdir, overrides)
    if arguments.step > loader.total_steps:
        raise UserError("--step", arguments.step, f"the run has {loader.total_steps} steps")
    rows = loader.examples(arguments.step - 1)
    if arguments.json:
        for row, example in _numbered(rows):
            print(json.dumps(to_json(row, example), ensure_ascii=False))
    else:
        print(f"step {arguments.step} of {loader.total_steps}: {sum(map(len, rows))} examples in {len(rows)} rows")
        for row, example in _numbered(rows):
            print(describe(row, example))
    return 0


def _open(config_file: str | None, workdir: str | None, overrides: Mapping[str, Any]) -> "Loader":
    """Return the loader of a config, or of a run."""
    # Imported once the command line is right, so that --help and mistakes need no JAX.
    from coi_jax.config.run import load_config
    from coi_jax.data import token_cache
    from coi_jax.data.loader import Loader
    from coi_jax.data.task_specs import check_names, training_tasks
    from coi_jax.runs.run_folder import RunFolder
    from coi_jax.tokenizers.vocabulary import load_vocabulary

    run = RunFolder(workdir) if workdir else None
    if run:
        run.load_config()  # or an error that names the file
    kept = run.kept_vocabulary if run else None
    config = load_config(run.config if run else config_file or "", overrides)
    check_names(config)
    caches = token_cache.open_or_write(config, training_tasks(config), kept)
    return Loader(config, caches, load_vocabulary(config, kept))


def _numbered(rows: "Sequence[Sequence[PlacedExample]]") -> "Iterator[tuple[int, PlacedExample]]":
    """Yield every example with the number of its row, from 1."""
    for number, row in enumerate(rows, 1):
        for example in row:
            yield number, example


def to_json(row: int, example: "PlacedExample") -> dict[str, Any]:
    """Return an example as JSON values.

    Args:
      row: its number in the step.
      example: the example.
    """
    ids = {"input_ids": example.inputs.tolist(), "target_ids": example.targets.tolist()}
    return {"row": row, "task": example.task, "chain": example.chain.row(), **ids}


def describe(row: int, example: "PlacedExample") -> str:
    """Return an example for people.

    Args:
      row: its number in the step.
      example: the example.
    """
    chain = example.chain
    sizes = f"{len(example.inputs)} + {len(example.targets)} tokens"
    lines = [f"row {row}: {chain.id} ({example.task}, {sizes})", f"instruction: {chain.instruction}"]
    lines += [f"input: {chain.input}", *(f"{k}. {step.output}" for k, step in enumerate(chain.steps, 1))]
    return "\n  ".join(line.replace("\n", "\n    ") for line in lines)


def command() -> int:
    """Run the command `coi-batch`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
