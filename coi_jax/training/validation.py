"""The loss on held-out chains during training, and the checkpoint where it was lowest."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coi_jax.common.errors import UserError
from coi_jax.config.run import EpochsConfig, RunConfig, TokenBatchConfig
from coi_jax.data.loader import Loader
from coi_jax.data.token_cache import TokenCache
from coi_jax.models import LossSums, Network, Params
from coi_jax.parallel import processes, sharding
from coi_jax.runs import checkpoint
from coi_jax.runs.checkpoint import Checkpoints, Position
from coi_jax.runs.train_state import TrainState
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.training.progress_log import VALIDATION
from coi_jax.training.step import Batch, split_microbatches

KEPT_PROGRAMS = 4  # compiled losses that a process keeps for its next runs
LossFunction = Callable[[Params, Params | None, Batch], LossSums]


class Validation:
    """The loss on the chains of a validation split.

    Args:
      config: of the run.
      caches: those of `task_specs.validation_tasks`.
      vocabulary: that the caches were written with.
      network: that is trained.
      mesh: that it is trained on.
      rows: of a batch: as many as a training step has.

    Raises:
      UserError: no chain of the split fits a row, or fewer than the config asks for.
    """

    def __init__(
        self,
        config: RunConfig,
        caches: list[TokenCache],
        vocabulary: Vocabulary,
        network: Network,
        mesh: Mesh,
        rows: int,
    ) -> None:
        assert config.train.validation is not None
        self._settings, self._mesh = config.train.validation, mesh
        self._loader = _open(config, caches, vocabulary, rows)
        capacity = self._loader.target_capacity(*sharding.batch_parts(mesh))
        self._sums = _compiled_loss(network, mesh, config.train.microbatches, capacity)

    def is_due(self, step: int, total_steps: int) -> bool:
        """Return whether to validate after `step`: every so many steps, and after the last."""
        return step % self._settings.every == 0 or step == total_steps

    def loss(self, state: TrainState) -> float:
        """Return the loss per target token over the whole split, in nats."""
        total: LossSums | None = None
        for batch in self._loader.iterate(0, sharding.batch_sharding(self._mesh)):
            sums = self._sums(state.params, state.frozen, batch)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        assert total is not None
        return float(total.loss) / float(total.tokens)


def make_loss(network: Network, microbatches: int, target_capacity: int) -> LossFunction:
    """Return the function of parameters and a batch that gives the loss sums, without dropout and without gradients.

    Args:
      network: its `loss` returns sums over target tokens.
      microbatches: the number of parts that the rows are processed in; must divide them.
      target_capacity: the most targets of one device in a microbatch.
    """

    def loss(params: Params, frozen: Params | None, batch: Batch) -> LossSums:
        joined = network.join(params, frozen)

        def add(total: LossSums, part: Batch) -> tuple[LossSums, None]:
            sums = network.loss(joined, part, target_capacity=target_capacity, key=None)
            return jax.tree.map(jnp.add, total, sums), None

        zeros = LossSums(*(jnp.zeros(()) for _ in LossSums._fields))
        total, _ = jax.lax.scan(add, zeros, split_microbatches(batch, microbatches))
        return total

    return loss


@functools.lru_cache(maxsize=KEPT_PROGRAMS)
def _compiled_loss(network: Network, mesh: Mesh, microbatches: int, target_capacity: int) -> LossFunction:
    """Return `make_loss` compiled for a mesh; the same function to runs that differ in their data alone."""
    layout = network.split(sharding.shardings(network.logical_axes(), network.abstract(), mesh))
    return jax.jit(
        make_loss(network, microbatches, target_capacity),
        in_shardings=(*layout, sharding.batch_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
    )


def _open(config: RunConfig, caches: list[TokenCache], vocabulary: Vocabulary, rows: int) -> Loader:
    """Return the loader of the split; its errors name the fields that the user gave."""
    try:
        return Loader(_one_pass(config, rows), caches, vocabulary, rows)
    except UserError as error:
        if error.field != "config.data.max_examples":
            raise
        raise UserError("config.train.validation.examples", error.value, error.hint) from None


def _one_pass(config: RunConfig, rows: int) -> RunConfig:
    """Return the config of a loader that reads a split once, in full rows."""
    validation = config.train.validation
    assert validation is not None
    data: dict[str, Any] = {
        "batch": TokenBatchConfig(count="tokens", rows=rows),
        "mixing": "concatenate",
        "ratios": None,
        "curriculum": None,
        "max_examples": validation.examples,
    }
    train = {"length": EpochsConfig(unit="epochs", count=1.0), "loss_on": config.train.loss_on}
    return config.model_copy(
        update={"data": config.data.model_copy(update=data), "train": config.train.model_copy(update=train)}
    )


class BestCheckpoint:
    """The checkpoint that does best on the validation split, in a folder of its own; only that one is kept.

    Args:
      folder: `best` of the run.
      by: what it is chosen by: "loss", the lowest, or a score of generated answers, the highest.
    """

    def __init__(self, folder: Any, by: str = "loss") -> None:
        self._by, self._key = by, f"{VALIDATION}{by}"
        self._sign = -1 if by == "loss" else 1
        self._checkpoints = Checkpoints(folder, keep=1)
        step = checkpoint.latest_step(folder)
        position = checkpoint.read_position(folder, step) if step is not None else {}
        self._best = float(position[self._key]) if self._key in position else -self._sign * math.inf

    def __enter__(self) -> "BestCheckpoint":
        self._checkpoints.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._checkpoints.__exit__(*details)

    def offer(self, numbers: Mapping[str, float], state: TrainState, step: int, position: Position) -> None:
        """Save the state where it does better than that of the checkpoint that is kept.

        Args:
          numbers: of the validation split, by their names in metrics.jsonl; nothing is done without the deciding one.
          state: that they are of.
          step: the steps that it has taken.
          position: where the run stands in its data.
        """
        value = numbers.get(self._key)
        if value is None or not self._sign * value > self._sign * self._best:
            return
        self._best = value
        self._checkpoints.save(state, step, position | {self._key: value})
        rank = "lowest" if self._sign < 0 else "highest"
        processes.log_primary(f"step {step}: validation {self._by.replace('_', ' ')} {value:.4f}, the {rank} so far")
