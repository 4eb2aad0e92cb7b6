"""Generate and score the answers of a trained run to test sets. Run the same command again to resume.

  python -m coi_jax.evaluate --workdir runs/coi12 --tasks coi2_test,coi3_test
  python -m coi_jax.evaluate --workdir runs/coi12 --tasks bbh --limit 200 --config.evaluation.decoding=sample

Predictions go to DIR/eval/TEST SET/predictions.jsonl as they are written, scores to results.json beside them; those of
the first examples alone (--limit) to results_first_200.json, which no table reads.
`--config.evaluation.*`, `--config.mesh.*`, `--config.data.folder` (also --dataset) and `--config.data.cache_folder` may
differ from the run's config.
"""

import json
import sys
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.storage import as_path
from coi_jax.data.test_sets import find_test_set
from coi_jax.runs.early_checks import check_run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(rest)
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError("limit", arguments.limit, "give at least 1, or leave it out for all examples")
    cli.set_field(overrides, "data.folder", "--dataset", arguments.dataset)
    cli.set_field(overrides, "evaluation.demonstrations", "--demonstrations", arguments.demonstrations)
    cli.set_field(overrides, "evaluation.shots", "--shots", arguments.shots)
    if arguments.dataset and not as_path(arguments.dataset, "--dataset").is_dir():
        raise UserError("--dataset", arguments.dataset, "no such folder")
    for name in arguments.tasks or ():
        find_test_set(name, "--tasks")
    if not arguments.config:
        check_run(arguments.source or arguments.workdir)
    # Imported once the command line is right, so that --help and mistakes need no JAX.
    from coi_jax.evaluation.evaluator import evaluate_newest
    from coi_jax.evaluation.score_table import show
    from coi_jax.inference.model import init_untrained_run
    from coi_jax.parallel import processes

    processes.start_jax()
    if arguments.config:
        init_untrained_run(arguments.workdir, arguments.config, overrides)
        overrides = {name: value for name, value in overrides.items() if name.startswith("evaluation.")}
    scored = evaluate_newest(arguments.workdir, overrides, arguments.source or None, arguments.tasks, arguments.limit)
    if arguments.json:
        processes.print_primary(json.dumps(scored, ensure_ascii=False))
    elif processes.is_primary():
        show(scored)
    return 0


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run folder, of python -m coi_jax.train")
    parser.add_argument("--tasks", type=cli.names, help="test sets, with commas; else the config's evaluation.tests")
    parser.add_argument("--limit", type=cli.integer, help="take only the first so many examples of each test set")
    parser.add_argument("--dataset", default="", help="dataset folder with the test sets; else the one trained on")
    parser.add_argument("--source", default="", help="run whose network is prompted, for an arm base, cot or ltm")
    parser.add_argument("--config", default="", help="begins a run of published weights as they are: arm base, no step")
    parser.add_argument("--shots", type=cli.integer, help="worked examples of arms cot and ltm; else the config's")
    parser.add_argument("--demonstrations", default="", help="file of chains that are the worked examples, JSON lines")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


def command() -> int:
    """Run the command `coi-evaluate`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
