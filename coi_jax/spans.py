"""Score the steps of answers without labels: a language model marks which part of an answer is the output of each step.

  python -m coi_jax.spans --workdir runs/base --tasks coi2_test,coi3_test --budget 1

A span counts only where it occurs in the answer. Writes spans.json beside the results.json of each test set, which
table 3 shows beside the scores of labelled steps. Replies are kept: the same command again asks nothing twice.
"""

import sys
from collections.abc import Sequence
from typing import Any

from coi_jax.common import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run folder, with answers of python -m coi_jax.evaluate")
    parser.add_argument("--tasks", required=True, type=cli.names, help="test sets, with commas")
    parser.add_argument("--config", default="configs/judge/spans.py", help="of the model that marks them")
    parser.add_argument("--budget", type=cli.number, metavar="DOLLARS", help="for all calls; without it no limit")
    arguments = parser.parse_args(rest)
    # Imported once the command line is right, so that --help and mistakes need little.
    from coi_jax.data.test_sets import find_test_set
    from coi_jax.evaluation.span_results import SPANS
    from coi_jax.judging.judge_config import load_spans_config, open_client
    from coi_jax.judging.span_scores import score_spans

    for name in arguments.tasks:
        find_test_set(name, "--tasks")
    config = load_spans_config(arguments.config, overrides)
    with open_client(config, arguments.budget) as client:
        for name in arguments.tasks:
            print(describe(score_spans(arguments.workdir, name, client, config)))
            print(f"written: {arguments.workdir}/eval/{name}/{SPANS}")
    return 0


def describe(results: dict[str, Any]) -> str:
    """Return the scores of spans in a few lines."""
    examples = f"{results['examples']:,} of {results['available_examples']:,} answers"
    marked = f"{results['asked']:,} marked by {results['judge']}, {results['labelled']:,} by their labels"
    notes = {"empty": "empty", "unusable": "left out, without a usable reply"}
    counts = [f"{results[name]:,} {words}" for name, words in notes.items() if results[name]]
    lines = [f"{results['task']}: {', '.join([examples, marked, *counts])}"]
    for name, score in results["scores"].items():
        lines.append(f"  {name}: {score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]")
    return "\n".join(lines)


def command() -> int:
    """Run the command `coi-spans`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
