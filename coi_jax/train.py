"""Train a network on the chains of an arm; the same command again resumes from the newest checkpoint.

  python -m coi_jax.train --config configs/quickstart.py --workdir runs/coi12 --config.arm=coi12

Any field of the config can be set with --config.FIELD=VALUE, as in --config.optimizer.learning_rate=1e-4.
SIGTERM finishes the step, saves, and exits with status 0.
"""

import sys
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.config.run import RunConfig, load_config
from coi_jax.parallel import processes
from coi_jax.parallel.processes import start_jax
from coi_jax.runs import checkpoint
from coi_jax.runs.run_folder import RunFolder, open_run
from coi_jax.training.loop import fit, prepare
from coi_jax.training.optimizer import check_optimizer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="config file, as configs/quickstart.py")
    parser.add_argument("--workdir", required=True, help="run folder, new or to go on with")
    arguments = parser.parse_args(rest)
    config = load_config(arguments.config, overrides)
    check_optimizer(config.optimizer)
    start_jax(heeds_sigterm=True)
    run = open_run(arguments.workdir, config)
    if is_finished(run):
        processes.print_primary(f"{run.path} is finished already; next: {next_command(run, config)}")
        return 0
    job = prepare(config, run)
    step, loss = fit(job)
    if step < job.total_steps:
        processes.print_primary(
            f"stopped and saved at step {step} of {job.total_steps}; run the same command again to go on"
        )
    else:
        processes.print_primary(
            f"trained {step} steps to a loss of {loss:.4f} in {run.path}; next: {next_command(run, config)}"
        )
    return 0


def is_finished(run: RunFolder) -> bool:
    """Return whether the run's newest checkpoint is the one of its last step."""
    step = checkpoint.latest_step(run.checkpoints)
    return step is not None and step >= checkpoint.read_position(run.checkpoints, step)["total_steps"]


def next_command(run: RunFolder, config: RunConfig) -> str:
    """Return the command that evaluates a trained run."""
    return f"python -m coi_jax.evaluate --workdir {run.path} --tasks {','.join(config.evaluation.tests)}"


def command() -> int:
    """Run the command `coi-train`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
