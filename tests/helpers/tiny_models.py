"""Tiny networks, configs and batches that the tests of training share; no dataset and no cache is needed."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax

from coi_jax.config.run import MeshConfig, OptimizerConfig, RunConfig, StepsConfig
from coi_jax.families.registry import PRESETS
from coi_jax.models import Network, build
from coi_jax.parallel import sharding
from coi_jax.runs.train_state import TrainState
from coi_jax.training import step as train_step
from coi_jax.training.optimizer import make_optimizer, make_schedule
from coi_jax.training.step import StepFunction
from tests.helpers.configs import RUN_FIELDS, dotted, quickstart_config

VOCABULARY = 32
LENGTH = 16
ROWS = 8

DECODER = {
    "preset": "llama",
    "window": None,
    "global_layer_interval": None,
    "layers": 2,
    "model_dim": 16,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 4,
    "mlp_dim": 32,
    "scan_unroll": 1,
}
T5 = PRESETS["t5_v11"] | {
    "vocabulary_size": None,
    "layers": 1,
    "decoder_layers": 2,
    "model_dim": 16,
    "heads": 4,
    "head_dim": 4,
    "mlp_dim": 32,
    "relative_buckets": 8,
    "relative_max_distance": 16,
    **RUN_FIELDS,
}


def run_config(kind: str = "decoder", **overrides: Any) -> RunConfig:
    """The quickstart's config with a tiny model; dots in overrides' names are written as two underscores."""
    changes: dict[str, Any] = {
        "data.batch.rows": ROWS,
        "data.length": LENGTH,
        "vocabulary.kind": "bytes",
        "train.length.count": 10,
        "train.log_every": 1,
        "train.checkpoint_every": 4,
    }
    if kind == "t5":
        changes |= {"model": T5, "data.targets_length": LENGTH}
    else:
        changes |= {f"model.{name}": value for name, value in DECODER.items()}
    return quickstart_config(changes | dotted(overrides))


def steps_of(config: RunConfig) -> int:
    """The steps of a run whose length is given in steps."""
    length = config.train.length
    assert isinstance(length, StepsConfig)
    return length.count


def network(kind: str = "decoder", **overrides: Any) -> Network:
    config = run_config(kind, **overrides)
    return build(config.model, VOCABULARY, config.lora)


def batch(kind: str = "decoder", seed: int = 0, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Rows of two examples and some padding, with the loss on the second half of each example."""
    random = np.random.default_rng(seed)
    segments = np.repeat([[1] * 6 + [2] * 8 + [0] * 2], rows, 0)
    tokens = random.integers(1, VOCABULARY, (rows, 1)) + np.arange(LENGTH + 1)
    tokens = tokens % (VOCABULARY - 1) + 1
    weights = (segments > 0) * (random.random(segments.shape) < 0.5)
    values = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights, "segments": segments}
    if kind == "t5":
        values |= {"encoder_tokens": tokens[:, 1:], "encoder_segments": segments}
    else:
        values["positions"] = np.repeat([[*range(6), *range(8), 0, 0]], rows, 0)
    return {name: np.asarray(value, np.int32) for name, value in values.items()}


class StandInLoader:
    """Batches that are a pure function of the step, as the real loader's are."""

    def __init__(self, total_steps: int, fingerprint: str = "some data") -> None:
        self.total_steps, self.fingerprint = total_steps, fingerprint

    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Iterator[dict[str, jax.Array]]:
        for step in range(start_step, self.total_steps):
            yield jax.device_put(batch(seed=step), sharding)

    def example_ids(self, step: int) -> list[str]:
        return [f"example {step}"]


def mesh(replica: int = 1, fsdp: int = 1, tensor: int = 1, sequence: int = 1) -> jax.sharding.Mesh:
    """A mesh over the first of the simulated devices."""
    config = MeshConfig(replica=replica, fsdp=fsdp, tensor=tensor, sequence=sequence)
    return sharding.make_mesh(config, jax.devices()[: replica * fsdp * tensor * sequence])


OPTIMIZER = OptimizerConfig(
    name="adamw",
    options={"b1": 0.9, "b2": 0.99, "epsilon": 1e-6},
    learning_rate=1e-2,
    schedule="linear",
    warmup_ratio=0.2,
    weight_decay=0.1,
    clip_norm=1.0,
)
OPTIMIZERS = {
    "adamw": OPTIMIZER,
    "adafactor": OPTIMIZER.model_copy(update={"name": "adafactor", "options": {}}),
}


class Trained:
    """A network, its optimizer and its compiled step on a mesh."""

    def __init__(
        self, network: Network, mesh: jax.sharding.Mesh, config: OptimizerConfig = OPTIMIZER, microbatches: int = 1
    ) -> None:
        schedule = make_schedule(config, 10)
        self.mesh = mesh
        self.optimizer: optax.GradientTransformation = make_optimizer(
            config, schedule, network.split(network.logical_axes())[0]
        )
        self.shardings = train_step.state_shardings(network, self.optimizer, mesh)
        self.abstract = train_step.abstract_state(network, self.optimizer)
        step = train_step.make_step(network, self.optimizer, schedule, microbatches=microbatches, seed=0)
        self.step: StepFunction = train_step.compile_step(step, self.shardings, mesh)
        with jax.set_mesh(mesh):
            shardings = (self.shardings.params, self.shardings.frozen)
            init = jax.jit(lambda key: network.split(network.init(key)), out_shardings=shardings)
            params, frozen = init(jax.random.key(0))
            self.state: TrainState = train_step.initial_state(params, frozen, self.optimizer, self.shardings)

    def run(self, batches: list[dict[str, np.ndarray]]) -> list[float]:
        """Takes a step on each batch; the losses."""
        losses = []
        with jax.set_mesh(self.mesh):
            for one in batches:
                self.state, metrics = self.step(self.state, jax.device_put(one, sharding.batch_sharding(self.mesh)))
                losses.append(float(metrics.loss))
        return losses


def structure(tree: Any) -> Any:
    """The structure of a tree; JAX's own annotation of it names no type."""
    return jax.tree.structure(tree)


def assert_close(left: Any, right: Any, tolerance: float) -> None:
    """Two trees agree leaf by leaf."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance), left, right)
