"""Train a run from its config to its last step: prepare what it needs once, then loop over the batches."""

import contextlib
import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import optax
from jax.sharding import Mesh

from coi_jax.common.errors import UserError
from coi_jax.config.run import OptimizerConfig, RunConfig, TrainConfig
from coi_jax.data import token_cache
from coi_jax.data.loader import Loader
from coi_jax.data.task_specs import training_tasks, validation_tasks
from coi_jax.models import Network, Params, build, flops
from coi_jax.parallel import hardware, processes, sharding
from coi_jax.runs import checkpoint
from coi_jax.runs.checkpoint import Checkpoints
from coi_jax.runs.damage import DamagedCheckpoint
from coi_jax.runs.run_folder import RunFolder, keep_vocabulary, write_environment
from coi_jax.runs.trackers import Tracker, open_trackers
from coi_jax.runs.train_state import TrainState
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.vocabulary import load_vocabulary, trained_size
from coi_jax.training import optimizer
from coi_jax.training import step as train_step
from coi_jax.training.progress_log import VALIDATION, VALIDATION_LOSS, LeftOut, ProgressLog
from coi_jax.training.step import StepFunction
from coi_jax.training.termination import Termination
from coi_jax.training.validation import BestCheckpoint, Validation
from coi_jax.weights.initial_weights import InitialWeights, initial_weights, open_weights

# In the position of a checkpoint: the rows of metrics.jsonl, and the steps that were left out.
LOGGED, LEFT_OUT = "logged_rows", "left_out"
LEAST_SECONDS = 60.0  # between checkpoints that are due by time, however little a save takes
KEPT_PROGRAMS = 8  # compiled steps that a process keeps for its next runs


@runtime_checkable
class Batches(Protocol):
    """The interface that training needs of a loader."""

    total_steps: int  # of the run
    fingerprint: str  # of all that the batches follow from

    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Iterator[dict[str, jax.Array]]:
        """Yield global batches from a step to the end of the run, laid out as `sharding` says."""

    def example_ids(self, step: int) -> list[str]:
        """Return the ids of the examples of a step, which is counted from 0."""


@runtime_checkable
class AnswerScorer(Protocol):
    """The interface that training needs of what generates and scores answers to the validation split."""

    def is_due(self, step: int, total_steps: int) -> bool:
        """Return whether to generate after a step."""

    def scores(self, params: Params) -> dict[str, float]:
        """Return the scores of the answers of some parameters, by their names in results.json, x 100."""


@dataclass(frozen=True)
class TrainingJob:
    """Everything that the training loop needs and does not change."""

    config: RunConfig
    run: RunFolder
    mesh: Mesh
    loader: Batches
    network: Network
    optimizer: optax.GradientTransformation
    shardings: TrainState
    step: StepFunction
    validation: Validation | None = None
    scorer: AnswerScorer | None = None

    @property
    def total_steps(self) -> int:
        """Return the number of steps of the whole run."""
        return self.loader.total_steps

    @property
    def initial_weights(self) -> InitialWeights:
        """Return what the run begins from."""
        return initial_weights(self.run, self.config, self.network)

    @property
    def position(self) -> checkpoint.Position:
        """Return which data the run reads, and for how long; the number of a step is its position there."""
        length = self.config.train.length.model_dump()
        return {"total_steps": self.total_steps, "length": length, "loader": self.loader.fingerprint}


def prepare(config: RunConfig, run: RunFolder) -> TrainingJob:
    """Return the job of a run: check the mesh, open the data, and record what is known before the first step.

    Raises:
      UserError: the mesh does not fit the devices, the batch or the network, or the data are missing.
    """
    mesh = sharding.make_mesh(config.mesh)
    check_weights(config, run)
    caches = token_cache.open_or_write(config, training_tasks(config), run.kept_vocabulary)
    processes.on_primary(lambda: keep_vocabulary(run, config))
    vocabulary = run.load_vocabulary()
    loader = Loader(config, caches, vocabulary, sharding.data_parallel(mesh) * config.train.microbatches)
    network = build(config.model, vocabulary.size, config.lora)
    data = {"caches": [item.hash for item in caches], "vocabulary": vocabulary.fingerprint} | loader.statistics()
    data |= initial_weights(run, config, network).record()
    counts = network.parameter_counts()
    processes.on_primary(lambda: write_environment(run, config, data, counts))
    processes.log_primary(loader.mixture_note)
    if loader.overlong_note:
        processes.log_primary(loader.overlong_note)
    processes.on_primary(lambda: warn_of_positions(config, run))
    processes.log_primary(f"{counts['trained']:,} of {counts['total']:,} parameters are trained")
    job = make_job(config, run, mesh, loader, network, loader.target_capacity(*sharding.batch_parts(mesh)))
    return replace(job, validation=make_validation(job, vocabulary, loader.rows_per_step))


def make_validation(job: TrainingJob, vocabulary: Vocabulary, rows: int) -> Validation | None:
    """Return the loss on the validation split; None where the config asks for none.

    Args:
      job: the training.
      vocabulary: of the run.
      rows: of a training step.

    Raises:
      UserError: the dataset has no chain of the split.
    """
    config = job.config
    if config.train.validation is None:
        return None
    tasks = validation_tasks(config, config.train.validation.split)
    caches = token_cache.open_or_write(config, tasks, job.run.kept_vocabulary)
    return Validation(config, caches, vocabulary, job.network, job.mesh, rows)


def check_weights(config: RunConfig, run: RunFolder) -> None:
    """Raise UserError where vocabulary, network and weights do not fit, before the data are tokenized."""
    is_trained = config.vocabulary.kind == "trained"  # on the data: it may not be there yet
    size = trained_size(config) if is_trained else load_vocabulary(config, run.kept_vocabulary).size
    network = build(config.model, size, config.lora)
    if config.weights.folder and checkpoint.latest_step(run.checkpoints) is None:
        open_weights(config.weights.folder, network)


def warn_of_positions(config: RunConfig, run: RunFolder) -> None:
    """Say so where a row has more positions than the model was published for."""
    published = run.published_positions
    if published is not None and config.data.length > published:
        processes.log_primary(
            f"warning: a row of config.data.length = {config.data.length} positions is longer than the {published} "
            "that the model was published for; it may not tell the later ones apart"
        )


def make_job(
    config: RunConfig,
    run: RunFolder,
    mesh: Mesh,
    loader: Batches,
    network: Network,
    target_capacity: int | None = None,
) -> TrainingJob:
    """Return the job of a loader and a network.

    Args:
      config: the config of the run.
      run: the folder that checkpoints and metrics are written to.
      mesh: the mesh to train on.
      loader: the batches to train on.
      network: the network to train.
      target_capacity: the most targets of one device in a microbatch; None: any number.

    Raises:
      UserError: the mesh does not fit the lengths of the rows or the network.
    """
    sharding.check_lengths([config.data.length, config.data.targets_length or 0], mesh)
    programs = make_programs(
        network,
        mesh,
        config.optimizer,
        total_steps=loader.total_steps,
        microbatches=config.train.microbatches,
        dropout_seed=config.seed if network.has_dropout else None,
        target_capacity=target_capacity,
        keep_finite=config.train.on_not_finite == "skip",
    )
    return TrainingJob(config, run, mesh, loader, network, *programs)


class Programs(NamedTuple):
    """What is compiled for a training, without its data."""

    optimizer: optax.GradientTransformation
    shardings: TrainState
    step: StepFunction


@functools.lru_cache(maxsize=KEPT_PROGRAMS)
def make_programs(
    network: Network,
    mesh: Mesh,
    optimizer_config: OptimizerConfig,
    *,
    total_steps: int,
    microbatches: int,
    dropout_seed: int | None,
    target_capacity: int | None,
    keep_finite: bool,
) -> Programs:
    """Return the optimizer and the step of a training; the same ones to runs that differ in their data alone.

    Args:
      network: the network to train.
      mesh: the mesh to train on.
      optimizer_config: the optimizer and its schedule.
      total_steps: of the run, over which the learning rate changes.
      microbatches: the number of parts that the rows of a step are processed in.
      dropout_seed: the seed of dropout; None where there is none.
      target_capacity: the most targets of one device in a microbatch; None: any number.
      keep_finite: whether a step that is not finite leaves parameters and optimizer as they were.
    """
    schedule = optimizer.make_schedule(optimizer_config, total_steps)
    trained_axes, _ = network.split(network.logical_axes())
    transformation = optimizer.make_optimizer(optimizer_config, schedule, trained_axes)
    shardings = train_step.state_shardings(network, transformation, mesh)
    step = train_step.make_step(
        network,
        transformation,
        schedule,
        microbatches=microbatches,
        seed=dropout_seed or 0,
        target_capacity=target_capacity,
        keep_finite=keep_finite,
    )
    return Programs(transformation, shardings, train_step.compile_step(step, shardings, mesh))


class Fitted(NamedTuple):
    """How training ended: steps taken, last loss, the signal that stopped it, if one did, and steps left out."""

    step: int
    loss: float
    signal: int | None
    left_out: int


def fit(job: TrainingJob) -> Fitted:
    """Train to the end or until a signal (`Termination`), and save.

    The host never waits for the step that it has just started: it reads the metrics of the step before. Before a
    checkpoint it waits: numbers that are not finite end the run there, and are never saved.
    """
    settings = job.config.train
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(job.mesh))
        checkpoints = stack.enter_context(Checkpoints(job.run.checkpoints, keep=settings.keep_checkpoints))
        state, step = restore_or_init(job, checkpoints)
        progress_log = stack.enter_context(make_progress_log(job, step))
        stop = stack.enter_context(Termination())
        best = stack.enter_context(BestCheckpoint(job.run.best, kept)) if (kept := keeps_best_by(settings)) else None
        schedule = CheckpointSchedule(settings)
        batches = job.loader.iterate(step, sharding.batch_sharding(job.mesh))
        while step < job.total_steps and not stop.requested(step):
            batch = next(batches)
            with jax.transfer_guard("disallow"):  # nothing may come from the host in the midst of a step
                state, metrics = job.step(state, batch)
            step += 1
            progress_log.add(step, metrics)
            if is_validation_due(job, step):
                progress_log.flush()
                validate(job, state, step, progress_log, best)
            if schedule.is_due(step):
                progress_log.flush()
                checkpoints.save(state, step, job.position | logged(progress_log))
                schedule.has_saved()
        progress_log.flush()
        checkpoints.save(state, step, job.position | logged(progress_log))
    job.initial_weights.keep_frozen_base(state.frozen)
    return Fitted(step, progress_log.loss, stop.signal, progress_log.left_out.total)


def logged(progress_log: ProgressLog) -> checkpoint.Position:
    """Return what a checkpoint keeps of the progress log."""
    return {LOGGED: progress_log.rows, LEFT_OUT: progress_log.left_out._asdict()}


def keeps_best_by(settings: TrainConfig) -> str | None:
    """Return what the best checkpoint is chosen by; None where none is kept."""
    validation = settings.validation
    return validation.best_by if validation is not None and validation.keep_best else None


def is_validation_due(job: TrainingJob, step: int) -> bool:
    """Return whether the loss or the answers on the validation split are due after a step."""
    return any(part is not None and part.is_due(step, job.total_steps) for part in (job.validation, job.scorer))


def validate(
    job: TrainingJob, state: TrainState, step: int, progress_log: ProgressLog, best: BestCheckpoint | None
) -> None:
    """Log the loss and the scores on the validation split that are due, and keep the state where it is the best so far.

    Args:
      job: the training.
      state: after `step`.
      step: the steps that were taken.
      progress_log: gets the numbers.
      best: the best checkpoint; None where it is not kept.
    """
    numbers = {}
    if job.validation and job.validation.is_due(step, job.total_steps):
        numbers[VALIDATION_LOSS] = job.validation.loss(state)
    if job.scorer and job.scorer.is_due(step, job.total_steps):
        scores = job.scorer.scores(job.network.join(state.params, state.frozen))
        numbers |= {f"{VALIDATION}{name}": score for name, score in scores.items()}
    progress_log.add_validation(step, numbers)
    if best:
        best.offer(numbers, state, step, job.position)


class CheckpointSchedule:
    """Says after which steps to save: after every so many, and so many minutes after the last checkpoint.

    Where the config says how often the machine is taken away, the minutes follow from the time that a save takes. All
    hosts get the same answer, that of the primary process's clock. Several hosts ask it only where a row of metrics is
    due, since they wait for each other then.
    """

    def __init__(self, settings: TrainConfig) -> None:
        self._settings, self._saved_at = settings, time.monotonic()
        self._save_seconds: float | None = None  # the longest so far

    def is_due(self, step: int) -> bool:
        """Return whether to save after `step`, and count the time from there if so."""
        is_due = step % self._settings.checkpoint_every == 0 or self._is_time(step)
        if is_due:
            self._saved_at = time.monotonic()
        return is_due

    def has_saved(self) -> None:
        """Take note that the save that was due has ended."""
        now = time.monotonic()
        self._save_seconds, self._saved_at = max(self._save_seconds or 0.0, now - self._saved_at), now

    @property
    def seconds(self) -> float | None:
        """The longest time between two checkpoints; None where it is counted in steps alone."""
        hours, minutes = self._settings.preemption_hours, self._settings.checkpoint_minutes
        if hours is not None and self._save_seconds is not None:
            return max(LEAST_SECONDS, best_interval(self._save_seconds, 3600 * hours))
        return None if minutes is None else 60 * minutes

    def _is_time(self, step: int) -> bool:
        if self._settings.checkpoint_minutes is None and self._settings.preemption_hours is None:
            return False
        if jax.process_count() > 1 and step % self._settings.log_every != 0:
            return False
        return bool(processes.on_primary(self._is_time_here))

    def _is_time_here(self) -> bool:
        seconds = self.seconds
        return seconds is not None and time.monotonic() - self._saved_at >= seconds


def best_interval(save_seconds: float, failure_seconds: float) -> float:
    """Return the seconds between checkpoints that lose the least time to saving and to steps that are taken again.

    Daly 2006, "A higher order estimate of the optimum checkpoint interval for restart dumps", equation 37; its first
    term is Young's of 1974.

    Args:
      save_seconds: that a save holds up training.
      failure_seconds: mean time between failures.
    """
    if save_seconds >= 2 * failure_seconds:
        return failure_seconds
    ratio = save_seconds / (2 * failure_seconds)
    return math.sqrt(2 * save_seconds * failure_seconds) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save_seconds


def restore_or_init(job: TrainingJob, checkpoints: Checkpoints) -> tuple[TrainState, int]:
    """Return the state of the newest sound checkpoint, or the initial one, and the steps that it has taken.

    A damaged checkpoint is renamed, and the one before it taken.

    Raises:
      UserError: the checkpoint was trained on other data than the config now leads to, or the only one is damaged.
    """
    while (step := checkpoint.latest_step(job.run.checkpoints)) is not None:
        try:
            checkpoint.check_on_all_hosts(job.run.checkpoints, step)
            return restore(job, checkpoints, step), step
        except DamagedCheckpoint as damage:
            checkpoints.set_aside(damage)
    params, frozen = job.initial_weights.load(job.mesh)
    return train_step.initial_state(params, frozen, job.optimizer, job.shardings), 0


def restore(job: TrainingJob, checkpoints: Checkpoints, step: int) -> TrainState:
    """Return the state of a checkpoint; raises as `restore_or_init`."""
    position = checkpoint.read_position(job.run.checkpoints, step)
    if position["loader"] != job.loader.fingerprint:
        hint = "was trained on data that has changed since; restore the dataset, or train into another --workdir"
        raise UserError("checkpoint", job.run.checkpoints / str(step), hint)
    processes.log_primary(f"going on from step {step}")
    abstract = train_step.abstract_state(job.network, job.optimizer)
    state = checkpoints.restore(step, abstract, job.shardings)
    if job.network.lora:
        state = state._replace(frozen=job.initial_weights.load_frozen_base(job.mesh))
    return state


def make_progress_log(job: TrainingJob, start_step: int) -> ProgressLog:
    """Return the progress log of a run that has taken `start_step` steps."""
    trackers: list[Tracker] = []
    processes.on_primary(lambda: trackers.extend(open_trackers(job.run.path, job.config)))
    position = checkpoint.read_position(job.run.checkpoints, start_step) if start_step else {}
    progress_log = ProgressLog(
        job.run,
        total_steps=job.total_steps,
        start_step=start_step,
        log_every=job.config.train.log_every,
        costs=flops.costs(job.network),
        peak_flops=hardware.matmul_peak(job.config.model.dtype),
        trackers=trackers,
        ids_of=lambda step: job.loader.example_ids(step - 1),
        skips=job.config.train.on_not_finite == "skip",
        left_out=LeftOut(**position.get(LEFT_OUT, {})),
    )
    rows = position.get(LOGGED)
    if rows is not None and progress_log.rows < rows:
        processes.log_primary(
            f"warning: {job.run.metrics} has lost {rows - progress_log.rows} of its {rows} rows up to step "
            f"{start_step}; restore it, or the curves of this run begin later"
        )
    return progress_log
