"""A run folder with a checkpoint of a tiny network that was never trained, and the caches of its test sets."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.config.run import RunConfig
from coi_jax.data.task_specs import evaluation_task
from coi_jax.models import build
from coi_jax.runs.checkpoint import Checkpoints, save_base
from coi_jax.runs.run_folder import RunFolder, open_run, write_environment
from coi_jax.runs.train_state import TrainState
from tests.helpers.configs import SAMPLING
from tests.helpers.tiny_models import DECODER
from tests.helpers.token_caches import make_chain, small_config, write_caches

TESTS = ("proc1_test", "proc2_test")
BYTES = 259


def make_run(folder: Path, examples: int = 9, **overrides: Any) -> RunFolder:
    """A run in `folder`/run, and its data beside it."""
    model = {f"model.{name}": value for name, value in DECODER.items()} | {"model.layers": 1}
    settings = {
        "mesh.fsdp": 1,
        "evaluation.tests": TESTS,
        "evaluation.max_new_tokens": 6,
        "evaluation.batch": 4,
        "evaluation.decoding": SAMPLING,
        "evaluation.bootstrap": 50,
    }
    write_tests(folder / "data", examples)
    config = small_config(folder, **model | settings | overrides)
    write_caches(config, [evaluation_task(config, name) for name in config.evaluation.tests])
    run = open_run(folder / "run", config)
    write_environment(run, config, {}, {})
    save(run, config, step=3)
    return run


def write_tests(folder: Path, examples: int) -> None:
    """A dataset with so many test rows of one step and of two."""
    with DatasetWriter(folder, "procedural") as writer:
        for length in (1, 2):
            for number in range(examples):
                writer.add("test", make_chain(number, length))
                writer.add("train", make_chain(number + 100, length))
        writer.finish("none", {})


def save(run: RunFolder, config: RunConfig, step: int) -> None:
    """A checkpoint of fresh parameters, other ones for each step."""
    network = build(config.model, BYTES, config.lora)
    params, frozen = network.split(network.init(jax.random.key(step)))
    with Checkpoints(run.checkpoints, keep=2) as checkpoints:
        state = TrainState(params, {"none": jnp.zeros(())}, jnp.asarray(step))
        checkpoints.save(state, step, {"total_steps": step, "loader": "none"})
    if network.lora:
        save_base(run.base, frozen)


def chains(length: int, examples: int) -> list[Chain]:
    """The test rows of a length."""
    return [make_chain(number, length) for number in range(examples)]
