"""Models of run folders."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config
from coi_jax.inference.generator import Generator, make_strategy
from coi_jax.inference.model import Model, load_model
from coi_jax.models import build
from coi_jax.runs.checkpoint import Checkpoints, restore_base
from coi_jax.runs.run_folder import RunFolder
from coi_jax.runs.train_state import TrainState
from tests.helpers.paths import QUICKSTART
from tests.helpers.trained_runs import BYTES, make_run

# One layer, which is not looped over.
ADAPTED = {"lora.rank": 2, "lora.base_dtype": "int8", "evaluation.decoding": {"kind": "greedy"}, "model.scan_unroll": 1}


def test_a_run_with_adapters_answers_as_the_network_that_they_are_folded_into(tmp_path: Path) -> None:
    run = make_run(tmp_path, examples=3, **ADAPTED)
    config = run.load_config()
    network = build(config.model, BYTES, config.lora)
    noise = np.random.default_rng(1)
    adapters = jax.tree.map(
        lambda leaf: jnp.asarray(noise.normal(0, 0.3, leaf.shape), jnp.float32), network.split(network.abstract())[0]
    )
    with Checkpoints(run.checkpoints, keep=1) as checkpoints:
        state = TrainState(adapters, {"none": jnp.zeros(())}, jnp.asarray(4))
        checkpoints.save(state, 4, {"total_steps": 4, "loader": "none"})
    model = load_model(run.path, {})
    prompts = [model.prompt(str(seed), np.arange(3, 6 + seed, dtype=np.int32)) for seed in range(3)]
    merged = network.merge(network.join(adapters, restore_base(run.base, network)))
    plain = build(config.model, BYTES)
    strategy = make_strategy(plain, model.vocabulary.stop_ids[0], config.evaluation)
    ours = {answer.index: answer.tokens for answer in model.answers(prompts)}
    expected = {answer.index: answer.tokens for answer in Generator(merged, strategy, 4, config.seed).run(prompts)}
    assert ours == expected
    assert len(set(map(tuple, ours.values()))) > 1


def test_an_answer_ends_where_positions_would_be_stretched_dynamically(tmp_path: Path) -> None:
    plain = load_config(QUICKSTART, {})
    limit, longest = plain.evaluation.max_new_tokens, 4 * plain.data.length
    fields = {"model.rope.scaling": "dynamic", "model.rope.factor": 2.0, "model.rope.original_length": longest}
    model = Model(RunFolder(tmp_path), RunFolder(tmp_path).path, load_config(QUICKSTART, fields), 0, "")
    with pytest.raises(UserError, match=f"config.evaluation.max_new_tokens: {limit}: a prompt has"):
        model.prompt("a", np.zeros(longest - limit, np.int32))


def test_a_mesh_of_one_device_needs_no_other_devices_and_any_other_mesh_must_fit(tmp_path: Path) -> None:
    config = load_config(QUICKSTART, {"mesh.fsdp": 4, "mesh.replica": 2})
    files.write_json(tmp_path / "config.json", config.model_dump(mode="json"))
    files.write_text(tmp_path / "checkpoints" / "3" / "params" / "weights", "some")
    one = load_model(tmp_path, {"mesh.fsdp": 1, "mesh.replica": 1})
    assert set(one.config.mesh.model_dump().values()) == {1}  # where there are eight devices
    assert load_model(tmp_path, {"mesh.fsdp": 8, "mesh.replica": 1}).config.mesh.fsdp == 8
    with pytest.raises(UserError, match=r"config\.mesh: "):
        load_model(tmp_path, {"mesh.fsdp": 3, "mesh.replica": 1})
