"""The workload of a step and a run: from the token caches where they are there, else from given means."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from coi_jax.common.errors import UserError
from coi_jax.common.wording import count_of
from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.config.run import RunConfig, StepsConfig, TokenBatchConfig
from coi_jax.data import token_cache
from coi_jax.data.loader import Loader
from coi_jax.data.row_shape import RowShape
from coi_jax.data.task_specs import training_tasks
from coi_jax.models.flops import Work, attention_pairs
from coi_jax.tokenizers.vocabulary import load_vocabulary

# The fullest device of the fullest step has so many times the mean number of targets, where nothing is known of them.
FULLEST_TARGETS = 1.25
# Share of positions that packing leaves useful where nothing is known of the lengths: of full rows, and where a step is
# a number of examples and its rows are those that the fullest step needs (`benchmarks.loader_speed` measures it).
FULL_ROWS, COUNTED_EXAMPLES = 0.99, 0.97


@dataclass(frozen=True)
class Means:
    """Means that stand in for absent data: ids of an example's prompt and answer, and the number of examples."""

    inputs: float
    targets: float
    examples: int | None


@dataclass(frozen=True)
class Workload:
    """The workload of a step and a run.

    Attributes:
      rows: of a step.
      examples: of a mean step.
      work: of a mean step.
      steps: of the run; None where the number of examples is not known.
      useful: share of a step's positions that are not padding.
      target_capacity: the most targets of one device in a microbatch.
      source: where the numbers come from, in words.
    """

    rows: int
    examples: float
    work: Work
    steps: int | None
    useful: float
    target_capacity: int
    source: str


def measure(config: RunConfig, parts: tuple[int, int], means: Means) -> Workload:
    """Return the workload of a config on a mesh.

    Args:
      config: of the run.
      parts: into which the mesh divides the rows of a step, and the positions of a row.
      means: used where no token caches are there.

    Raises:
      UserError: the config's rows do not divide, or do not hold a step's examples or even one.
    """
    caches = _find(config)
    return _of_means(config, parts, means) if caches is None else _of_caches(config, parts, caches)


def _find(config: RunConfig) -> list[token_cache.TokenCache] | None:
    """Return the caches of a config; None where the dataset or one of them is not there."""
    try:
        return token_cache.find(config, training_tasks(config))
    except UserError:
        return None


def _of_caches(config: RunConfig, parts: tuple[int, int], caches: list[token_cache.TokenCache]) -> Workload:
    vocabulary = load_vocabulary(config)
    loader = Loader(config, caches, vocabulary, parts[0] * config.train.microbatches)
    begins = int(vocabulary.bos_id is not None and config.model.kind == "decoder")
    shape = RowShape(config.data.length, config.data.targets_length or 0, begins)
    parts_of_epoch = [
        _scaled(_work(shape.needs(lengths), lengths, config.model), share.passes)
        for lengths, share in zip(loader.lengths_by_task, loader.mixture, strict=True)
    ]
    work = _scaled(_host_work(*map(sum, zip(*parts_of_epoch, strict=True))), 1 / loader.steps_per_epoch)
    useful = (work.tokens + work.encoder_tokens) / (loader.rows_per_step * sum(shape.capacity))
    examples = sum(share.examples for share in loader.mixture)
    source = f"{count_of(examples, 'example')} of the token caches in {config.data.cache_folder}"
    steps, capacity = loader.total_steps, loader.target_capacity(*parts)
    return Workload(loader.rows_per_step, float(work.examples), work, steps, float(useful), capacity, source)


def _work(
    needs: Int[np.ndarray, "examples sides"], lengths: Int[np.ndarray, "examples 2"], config: DecoderConfig | T5Config
) -> Work:
    """Return what some examples ask of a network; see `coi_jax.models.flops.count_work`."""
    tokens = needs[:, -1].astype(float)
    is_t5 = needs.shape[1] == 2
    encoder = lengths[:, 0].astype(float) if is_t5 else np.zeros(len(needs))
    return _host_work(
        len(needs),
        tokens.sum(),
        lengths[:, 1].sum(),
        encoder.sum(),
        attention_pairs(tokens, config).sum(),
        (encoder**2).sum(),
        (tokens * encoder).sum(),
    )


def _host_work(*parts: float) -> Work:
    """Return numbers of the host, in the order of the fields of `Work`."""
    return Work(*map(float, parts))  # type: ignore[arg-type]


def _scaled(work: Work, factor: float) -> Work:
    return _host_work(*(factor * float(part) for part in work))


def _of_means(config: RunConfig, parts: tuple[int, int], means: Means) -> Workload:
    targets_length = config.data.targets_length
    sides = (means.inputs, means.targets) if targets_length else (means.inputs + means.targets,)
    capacity = (config.data.length, targets_length) if targets_length else (config.data.length,)
    rows, examples = _rows_and_examples(config, parts[0] * config.train.microbatches, sides, capacity)
    one = _work(np.array([sides]), np.array([[means.inputs, means.targets]]), config.model)
    work = _scaled(one, examples)
    steps = _steps(config, means, examples)
    useful = examples * sum(sides) / (rows * sum(capacity))
    source = f"assumed means: {means.inputs:g} + {means.targets:g} ids an example (prompt + answer)"
    targets = examples * means.targets / (math.prod(parts) * config.train.microbatches)
    return Workload(rows, examples, work, steps, useful, math.ceil(FULLEST_TARGETS * targets), source)


def _steps(config: RunConfig, means: Means, examples: float) -> int | None:
    """Return the steps of the run; None where it is counted in epochs of unknown size."""
    if isinstance(config.train.length, StepsConfig):
        return config.train.length.count
    return math.ceil(config.train.length.count * means.examples / examples) if means.examples else None


def _rows_and_examples(
    config: RunConfig, multiple: int, sides: tuple[float, ...], capacity: tuple[int, ...]
) -> tuple[int, float]:
    """Return rows of a step, and the examples that they hold on the fuller side."""
    fullest = max(size / room for size, room in zip(sides, capacity, strict=True))  # of a row, by an example
    if fullest > 1:
        longest = max(sides)
        hint = f"holds no mean example, of {longest:g} ids; give longer rows, or --inputs and --targets"
        raise UserError("config.data.length", config.data.length, hint)
    batch = config.data.batch
    if batch.rows and batch.rows % multiple:
        hint = f"must be a multiple of data-parallel devices × microbatches, {multiple}"
        raise UserError("config.data.batch.rows", batch.rows, hint)
    if isinstance(batch, TokenBatchConfig):
        return batch.rows, batch.rows * FULL_ROWS / fullest
    needed = math.ceil(batch.examples * fullest / COUNTED_EXAMPLES)
    return batch.rows or -(-needed // multiple) * multiple, batch.examples
