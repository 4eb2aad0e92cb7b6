"""Train the run of a folder, from its beginning or from its newest checkpoint."""

import contextlib
import os
import shlex
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from coi_jax.common.folder_lock import folder_lock
from coi_jax.common.storage import PathLike
from coi_jax.config.run import RunConfig
from coi_jax.data.task_specs import available_tests, check_names
from coi_jax.parallel import processes
from coi_jax.runs import checkpoint
from coi_jax.runs.damage import DamagedCheckpoint
from coi_jax.runs.run_folder import RunFolder, open_run
from coi_jax.runs.trackers import check_installed
from coi_jax.training.loop import AnswerScorer, TrainingJob, fit, prepare
from coi_jax.training.optimizer import check_optimizer


class Trained(NamedTuple):
    """How training ended: what was done and what comes next, and whether Ctrl-C stopped it."""

    report: str
    is_interrupted: bool = False


MakeScorer = Callable[[TrainingJob], AnswerScorer | None]


def train(config: RunConfig, workdir: PathLike, make_scorer: MakeScorer | None = None) -> Trained:
    """Train a run to its last step, or until it is told to stop.

    Args:
      config: of the run; a folder that exists must be of the same.
      workdir: the run folder, new or to go on with.
      make_scorer: returns what scores answers to the validation split, where the config asks for it; None: nothing.

    Raises:
      UserError: the folder holds something else, another process trains in it, or the config does not fit the data,
        the devices or the network.
    """
    check_names(config)
    check_optimizer(config.optimizer)
    check_installed(config.logging)
    with contextlib.ExitStack() as stack:
        processes.on_primary(lambda: stack.enter_context(folder_lock(workdir, "workdir")))
        return _train_locked(config, workdir, make_scorer)


def _train_locked(config: RunConfig, workdir: PathLike, make_scorer: MakeScorer | None) -> Trained:
    run = open_run(workdir, config)
    if is_finished(run, config):
        return Trained(f"{run.path} is finished already; next: {next_command(run, config)}")
    job = prepare(config, run)
    if make_scorer is not None:
        job = replace(job, scorer=make_scorer(job))
    step, loss, stopped_by, left_out = fit(job)
    if step < job.total_steps:
        report = f"stopped and saved at step {step} of {job.total_steps}; run the same command again to go on"
        return Trained(report, is_interrupted=stopped_by == signal.SIGINT)
    trained = f"trained {step} steps to a loss of {loss:.4f} in {run.path}"
    if left_out:
        trained += f", and left out {left_out} of them, which were not finite"
    return Trained(f"{trained}; next: {next_command(run, config)}")


def is_finished(run: RunFolder, config: RunConfig) -> bool:
    """Return whether the run's newest checkpoint is the last one of the length that the config gives."""
    step = checkpoint.latest_step(run.checkpoints)
    if step is None:
        return False
    try:
        position = checkpoint.read_position(run.checkpoints, step)
    except DamagedCheckpoint:
        return False  # which is set aside when training goes on from the one before
    if not (run.checkpoints / str(step) / "params").is_dir():
        return False
    length = config.train.length.model_dump()
    return bool(step >= position["total_steps"] and position.get("length", length) == length)


def next_command(run: RunFolder, config: RunConfig) -> str:
    """Return the command that evaluates a trained run on those of its test sets that the dataset has."""
    tests = available_tests(config) or config.evaluation.tests
    return f"python -m coi_jax.evaluate --workdir {shlex.quote(os.fspath(run.path))} --tasks {','.join(tests)}"
