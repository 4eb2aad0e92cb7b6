"""Train the run of a folder, from its beginning or from its newest checkpoint."""

from coi_jax.common.storage import PathLike
from coi_jax.config.run import RunConfig
from coi_jax.runs import checkpoint
from coi_jax.runs.run_folder import RunFolder, open_run
from coi_jax.training.loop import fit, prepare
from coi_jax.training.optimizer import check_optimizer


def train(config: RunConfig, workdir: PathLike) -> str:
    """Train a run to its last step, or until it is told to stop; return what was done and what comes next.

    Args:
      config: of the run; a folder that exists must be of the same.
      workdir: the run folder, new or to go on with.

    Raises:
      UserError: the folder holds something else, or the config does not fit the data, the devices or the network.
    """
    check_optimizer(config.optimizer)
    run = open_run(workdir, config)
    if is_finished(run):
        return f"{run.path} is finished already; next: {next_command(run, config)}"
    job = prepare(config, run)
    step, loss = fit(job)
    if step < job.total_steps:
        return f"stopped and saved at step {step} of {job.total_steps}; run the same command again to go on"
    return f"trained {step} steps to a loss of {loss:.4f} in {run.path}; next: {next_command(run, config)}"


def is_finished(run: RunFolder) -> bool:
    """Return whether the run's newest checkpoint is the one of its last step."""
    step = checkpoint.latest_step(run.checkpoints)
    return step is not None and step >= checkpoint.read_position(run.checkpoints, step)["total_steps"]


def next_command(run: RunFolder, config: RunConfig) -> str:
    """Return the command that evaluates a trained run."""
    return f"python -m coi_jax.evaluate --workdir {run.path} --tasks {','.join(config.evaluation.tests)}"
