"""Train a network on the chains of an arm; the same command again resumes from the newest checkpoint.

  python -m coi_jax.train --config configs/quickstart.py --workdir runs/coi12 --config.arm=coi12

Any field of the config can be set with --config.FIELD=VALUE, as in --config.optimizer.learning_rate=1e-4.
SIGTERM or Ctrl-C finishes the step and saves; the status is 0 after SIGTERM and 130 after Ctrl-C. Before the first step
there is nothing to save, and either ends the command at once.
"""

import sys
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.config.pretrained import kept_files
from coi_jax.config.run import load_config
from coi_jax.runs.early_checks import check_training


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="config file, as configs/quickstart.py")
    parser.add_argument("--workdir", required=True, help="run folder, new or to go on with")
    arguments = parser.parse_args(rest)
    config = load_config(arguments.config, overrides, kept=kept_files(arguments.workdir))
    check_training(config, arguments.workdir)
    # Imported once the command line is right, so that --help and mistakes need no JAX.
    from coi_jax.evaluation.validation_scores import make_scorer
    from coi_jax.parallel import processes
    from coi_jax.training.trainer import train

    processes.start_jax(heeds_sigterm=True)
    trained = train(config, arguments.workdir, make_scorer)
    processes.print_primary(trained.report)
    return cli.EXIT_INTERRUPTED if trained.is_interrupted else 0


def command() -> int:
    """Run the command `coi-train`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
