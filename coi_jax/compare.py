"""Compare two runs by the paired bootstrap: the difference of their scores, with a 95% interval.

  python -m coi_jax.compare runs/coi12 runs/coi2 --tasks coi2_test,coi3_test
  python -m coi_jax.compare runs/coi12_0,runs/coi12_1,runs/coi12_2 runs/coi2_0,runs/coi2_1,runs/coi2_2

Reads what python -m coi_jax.evaluate wrote, and compares the examples that all runs have answered. Several runs of a
side, as of several seeds, are replicates, which are drawn as the examples are. The difference is A minus B.
"""

import json
import sys
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.common.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.seed < 0:
        raise UserError("--seed", arguments.seed, "give 0 or more")
    a, b = _names(arguments.a, "RUN_A"), _names(arguments.b, "RUN_B")
    from coi_jax.evaluation.comparison import compare  # once the command line is right: --help needs no scorer
    from coi_jax.evaluation.comparison_table import show

    found = compare(
        a, b, arguments.tasks or (), arguments.scores or (), resamples=arguments.resamples, seed=arguments.seed
    )
    if arguments.json:
        made_from = {"a": a, "b": b, "resamples": arguments.resamples, "seed": arguments.seed}
        print(json.dumps(made_from | {"comparisons": [each.to_dict() for each in found]}, ensure_ascii=False))
    else:
        show(found, a, b)
    return 0


def _names(given: str, side: str) -> list[str]:
    """Return the run folders of a side."""
    runs = given.split(",")
    if not all(runs) or len(set(runs)) < len(runs):
        raise UserError(side, given, "name run folders, each once, with commas between")
    return runs


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("a", metavar="RUN_A", help="run folder; several, with commas, are replicates")
    parser.add_argument("b", metavar="RUN_B", help="run folder, or several, that it is compared with")
    parser.add_argument("--tasks", type=cli.names, help="test sets, with commas; else all that every run has answered")
    parser.add_argument(
        "--scores", type=cli.names, help="scores, as results.json names them; else those of the terminal"
    )
    parser.add_argument("--resamples", type=cli.positive_int, default=2000, help="number of bootstrap resamples")
    parser.add_argument("--seed", type=cli.integer, default=0, help="of the resampling")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    return parser


def command() -> int:
    """Run the command `coi-compare`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
