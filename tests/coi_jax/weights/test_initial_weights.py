"""Weights that runs begin from: onto meshes, in the dtypes that they are held in, within bounds of memory."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from etils import epath
from safetensors.numpy import save_file

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import atomic_folder, upload_folder
from coi_jax.config.model import DecoderConfig, LoraConfig
from coi_jax.config.run import RunConfig
from coi_jax.families.published_config import from_hf_config
from coi_jax.models import Network, Params, build
from coi_jax.runs import checkpoint
from coi_jax.runs.run_folder import open_run
from coi_jax.training import loop
from coi_jax.training import step as train_step
from coi_jax.training.loop import TrainingJob
from coi_jax.weights import hf_names, kept_base
from coi_jax.weights.hf_names import to_params
from coi_jax.weights.initial_weights import PretrainedWeights, initial_weights, open_weights
from coi_jax.weights.mesh_loading import load_params
from coi_jax.weights.safetensors_files import SINGLE, TensorSpec, write_tensors
from coi_jax.weights.sources import folder_identity
from tests.helpers import published_models, tiny_models, trained_runs
from tests.helpers.configs import RUN_FIELDS
from tests.helpers.paths import ROOT
from tests.helpers.published_models import tensors
from tests.helpers.tiny_models import StandInLoader, run_config

pytestmark = pytest.mark.xdist_group("weights")  # its fixtures take long: one worker makes them

ROWS = 264  # of the embedding: what a mesh divides
SIZES = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LORA = LoraConfig(rank=2, alpha=4.0, targets="attention|mlp", dropout=0.0, rank_stabilized=False, base_dtype="int8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published decoder in bfloat16."""
    return published_models.save(tmp_path_factory.mktemp("published") / "model", "Qwen 3", torch.bfloat16, **SIZES)


@pytest.fixture(scope="module")
def network() -> Network:
    return build(published_models.section(published_models.model("Qwen 3", **SIZES)), 1)


@pytest.fixture(scope="module")
def expected(folder: Path, network: Network) -> Params:
    """The parameters, all in memory."""
    wide = {key: tensor.astype(np.float32) for key, tensor in tensors(folder).items()}
    return to_params(network.config, network.abstract(), wide)


def assert_same(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)


@pytest.mark.parametrize("axes", [{}, {"fsdp": 8}, {"tensor": 2, "fsdp": 2, "replica": 2}], ids=str)
def test_parameters_lie_on_the_mesh_in_fp32(
    folder: Path, network: Network, expected: Params, axes: dict[str, int]
) -> None:
    mesh = tiny_models.mesh(**axes) if axes else None
    found = load_params(open_weights(str(folder), network), network, mesh)
    assert_same(found, expected)
    for leaf, due in zip(jax.tree.leaves(found), jax.tree.leaves(checkpoint.placed_params(network, mesh)), strict=True):
        assert (leaf.dtype, leaf.sharding) == (jnp.float32, due.sharding)


@pytest.mark.parametrize("base_dtype", ["float32", "bfloat16", "int8"])
def test_a_frozen_base_is_held_as_the_adapters_ask(
    folder: Path, network: Network, expected: Params, base_dtype: str
) -> None:
    lora = LORA.model_copy(update={"base_dtype": base_dtype})
    adapted = dataclasses.replace(network, lora=lora)
    mesh = tiny_models.mesh(fsdp=2, tensor=2)
    found = load_params(open_weights(str(folder), adapted), adapted, mesh)
    assert_same(found, jax.device_get(jax.jit(adapted.cast_base)(expected)))
    _, due = adapted.split(checkpoint.placed_params(adapted, mesh))
    jax.tree.map(
        lambda leaf, like: np.testing.assert_equal((leaf.dtype, leaf.sharding), (like.dtype, like.sharding)), found, due
    )


def test_a_folder_in_a_bucket(folder: Path, network: Network, expected: Params, bucket: str) -> None:
    upload_folder(folder, epath.Path(f"{bucket}/model"))
    source = open_weights(f"{bucket}/model", network)
    assert_same(load_params(source, network, None), expected)
    assert folder_identity(f"{bucket}/model") == folder_identity(str(folder))


def test_gemma_3_in_a_folder_with_a_vision_tower(tmp_path: Path) -> None:
    text = published_models.save(tmp_path / "text", "Gemma 3")
    config = json.loads((text / "config.json").read_text()) | {"model_type": "gemma3_text"}
    held = {key.replace("model.", "language_model.model."): value for key, value in tensors(text).items()}
    held["vision_tower.encoder.weight"] = np.zeros((3, 3), np.float32)
    held["language_model.lm_head.weight"] = held["language_model.model.embed_tokens.weight"].copy()
    whole = tmp_path / "whole"
    whole.mkdir()
    save_file(held, whole / SINGLE)
    values = {"model_type": "gemma3", "text_config": config, "vision_config": {}}
    (whole / "config.json").write_text(json.dumps(values))
    network = build(published_models.section(published_models.model("Gemma 3")), 1)
    params = [load_params(open_weights(str(path), network), network, None) for path in (text, whole)]
    assert_same(*params)
    held["language_model.lm_head.weight"][0, 0] += 1
    save_file(held, whole / SINGLE)
    with pytest.raises(UserError, match="differ, though the config says that they are one"):
        open_weights(str(whole), network)


def test_a_network_of_other_sizes_is_named_by_its_field(folder: Path, network: Network) -> None:
    config = network.config.model_copy(update={"mlp_dim": 40})
    with pytest.raises(UserError, match=r"config.model.mlp_dim: 40: the checkpoint .* has 48"):
        open_weights(str(folder), build(config, 1))
    longer = build(network.config.model_copy(update={"vocabulary_size": None}), 300)
    with pytest.raises(UserError, match=r"config.model.vocabulary_size: 300: the checkpoint .* has 264"):
        open_weights(str(folder), longer)


def test_a_config_that_its_own_tensors_contradict(folder: Path, network: Network, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    values = json.loads((copy / "config.json").read_text()) | {"intermediate_size": 40}
    (copy / "config.json").write_text(json.dumps(values))
    wrong = build(network.config.model_copy(update={"mlp_dim": 40}), 1)
    with pytest.raises(
        UserError, match=r"gate_proj.weight \[48, 32\], where \[40, 32\] is due \(mlp_dim × model_dim\)"
    ):
        open_weights(str(copy), wrong)


def make_job(folder: Path, config: RunConfig, **axes: int) -> TrainingJob:
    run = open_run(folder, config)
    network = build(config.model, ROWS, config.lora)
    note = initial_weights(run, config, network).record()
    (folder / "environment.json").write_text(json.dumps({"data": note}))
    loader = StandInLoader(tiny_models.steps_of(config))
    return loop.make_job(config, run, tiny_models.mesh(**axes), loader, network)


def begin(job: TrainingJob) -> tuple[Params, Params | None, int]:
    with checkpoint.Checkpoints(job.run.checkpoints, keep=1) as checkpoints:
        state, done = loop.restore_or_init(job, checkpoints)
        if not done:
            checkpoints.save(state._replace(step=jnp.asarray(3)), 3, job.position)
    return jax.device_get(state.params), jax.device_get(state.frozen), done


def recorded_identity(job: TrainingJob) -> str:
    assert isinstance(job.initial_weights, PretrainedWeights)
    return job.initial_weights.recorded_identity()


def config_of(network: Network, folder: Path | str | None, **overrides: Any) -> RunConfig:
    weights = None if folder is None else str(folder)
    return run_config(model=network.config.model_dump(), weights__folder=weights, **overrides)


@pytest.mark.parametrize("adapters", [{}, {"lora__rank": 2, "lora__base_dtype": "int8"}], ids=["all", "adapters"])
def test_random_weights_are_those_of_the_seed_on_any_mesh(
    network: Network, tmp_path: Path, adapters: dict[str, Any]
) -> None:
    config = run_config(model=network.config.model_dump(), seed=5, **adapters)
    job = make_job(tmp_path / "run", config, fsdp=2, tensor=2)
    trained, frozen = job.initial_weights.load(job.mesh)
    expected = job.network.split(jax.jit(job.network.init)(jax.random.key(5)))

    def check(found: jax.Array, due: jax.Array) -> None:
        # Scales of int8 are quotients, which loops that XLA fuses in different ways round in the last place.
        np.testing.assert_allclose(found, due, rtol=2e-7 if due.dtype == jnp.float32 and adapters else 0, atol=0)

    jax.tree.map(check, jax.device_get(frozen), jax.device_get(expected[1]))
    assert_same(trained, jax.device_get(expected[0]))
    assert job.initial_weights.record() == {}
    assert job.run.base.is_dir() == bool(adapters)
    if adapters:
        assert_same(job.initial_weights.load_frozen_base(None), jax.device_get(frozen))


@pytest.mark.parametrize("base_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
def test_numbers_that_are_not_finite_are_named(
    folder: Path, network: Network, tmp_path: Path, name: str, base_dtype: str | None
) -> None:
    source = Path(shutil.copytree(folder, tmp_path / "model"))
    damaged = tensors(source)
    damaged[name] = damaged[name].copy()
    damaged[name].flat[5] = np.inf if base_dtype else np.nan
    save_file(damaged, source / SINGLE)
    lora = {"lora__rank": 2, "lora__base_dtype": base_dtype} if base_dtype else {}
    job = make_job(tmp_path / "run", config_of(network, source, **lora), fsdp=2, tensor=2)
    with pytest.raises(UserError, match=rf"config.weights.folder: {source}: {name} holds numbers that are not finite"):
        job.initial_weights.load(job.mesh)


def test_training_begins_from_the_weights_and_goes_on_without_them(
    folder: Path, network: Network, expected: Params, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(folder, tmp_path / "model"))
    config = config_of(network, source)
    job = make_job(tmp_path / "run", config, fsdp=2)
    params, _, done = begin(job)
    assert_same(params, expected)
    assert done == 0
    assert (tmp_path / "run" / "published" / "config.json").is_file()
    recorded = recorded_identity(job)
    shutil.rmtree(source)
    again = make_job(tmp_path / "run", config)
    params, _, done = begin(again)
    assert_same(params, expected)
    assert done == 3
    assert recorded_identity(again) == recorded


def test_adapters_stand_beside_the_weights_that_they_were_trained_beside(
    folder: Path, network: Network, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(folder, tmp_path / "model"))
    config = config_of(network, source, lora__rank=2, lora__base_dtype="int8")
    adapters, base, _ = begin(make_job(tmp_path / "run", config, fsdp=2, tensor=2))
    again, same_base, done = begin(make_job(tmp_path / "run", config))
    assert done == 3
    assert_same(again, adapters)
    assert_same(same_base, base)
    assert not (tmp_path / "run" / "base").exists()
    path = next(source.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="has changed since the adapters were trained beside it"):
        begin(make_job(tmp_path / "run", config))


def test_the_base_of_adapters_is_read_once_by_a_process_that_keeps_it(
    folder: Path, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(network, folder, lora__rank=2)
    first = make_job(tmp_path / "first", config, fsdp=2)
    with kept_base.keeping():
        _, base = first.initial_weights.load(first.mesh)
        expected = jax.device_get(base)
        first.initial_weights.keep_frozen_base(base)
        monkeypatch.setattr("coi_jax.weights.initial_weights.load_params", lambda *_: pytest.fail("read again"))
        other_rank = config_of(network, folder, lora__rank=3, seed=1)
        second = make_job(tmp_path / "second", other_rank)
        _, shared = second.initial_weights.load(second.mesh)
        assert_same(shared, expected)
        monkeypatch.undo()
        _, again = second.initial_weights.load(second.mesh)  # the kept one was handed over, and may be donated
        assert_same(again, expected)
    assert kept_base.take("anything") is None


def test_training_begins_from_another_run(tmp_path: Path) -> None:
    run = trained_runs.make_run(tmp_path)
    config = run.load_config()
    network = build(config.model, trained_runs.BYTES)
    expected = checkpoint.restore_params(run.checkpoints, network)
    source = open_weights(str(run.path), network)
    found = load_params(source, network, tiny_models.mesh(fsdp=4))
    assert_same(found, jax.device_get(expected))
    assert folder_identity(str(run.path)) == checkpoint.identity(run.checkpoints, 3)
    other = build(config.model.model_copy(update={"layers": 2}), trained_runs.BYTES)
    with pytest.raises(UserError, match=r"config.model.layers: 2: the checkpoint .* has 1"):
        open_weights(str(run.path), other)


@pytest.mark.parametrize("base", ["random", "published"])
def test_adapters_are_folded_into_their_base(folder: Path, network: Network, tmp_path: Path, base: str) -> None:
    config = config_of(network, folder if base == "published" else None, lora__rank=2, lora__base_dtype="int8")
    job = make_job(tmp_path / "run", config)
    params, frozen = job.initial_weights.load(job.mesh)
    state = train_step.initial_state(params, frozen, job.optimizer, job.shardings)
    adapters = jax.tree.map(lambda leaf: leaf + 0.1, state.params)
    with checkpoint.Checkpoints(job.run.checkpoints, keep=1) as checkpoints:
        checkpoints.save(state._replace(params=adapters), 3, job.position)
    expected = job.network.merge(job.network.join(adapters, state.frozen))
    whole = dataclasses.replace(job.network, lora=None)
    found = load_params(open_weights(str(job.run.path), whole), whole, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)


WIDE = {
    "model_type": "llama",
    "num_hidden_layers": 24,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 1024,
}

# Prints by how many bytes each work raised the peak of this process's memory.
MEMORY = """
import re, sys
from pathlib import Path
import jax
from coi_jax.config import published_run
from coi_jax.weights import conversion
from coi_jax.common.storage import Folder
from coi_jax.models import build
from coi_jax.runs.run_folder import RunFolder
from coi_jax.weights.initial_weights import open_weights
from coi_jax.weights.mesh_loading import load_params

source, out, config_file = sys.argv[1:]
overrides = {"vocabulary.kind": "bytes"}
network = build(published_run.imported_config(Folder(source, "src"), config_file, overrides).model, 259)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def raised(work):
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    work()
    print(work.__name__, peak() - before)

def import_model():
    conversion.import_model(Folder(source, "src"), out + "/run", config_file, overrides)

def export_model():
    conversion.export_model(RunFolder(out + "/run"), out + "/back", None, 10**9)

def load():
    global params
    params = load_params(open_weights(source, network), network, None)

for work in (import_model, export_model, load):
    raised(work)
"""


def test_host_memory_holds_a_few_tensors_and_never_the_model(tmp_path: Path) -> None:
    config = from_hf_config(WIDE)
    network = build(DecoderConfig(**config, **RUN_FIELDS), 1)
    mappings = hf_names.parameter_mappings(network.config, network.abstract())
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    specs = [TensorSpec(key, mapping.tensor_shape, bfloat16) for mapping in mappings.values() for key in mapping.keys]
    with atomic_folder(tmp_path / "model", marker="config.json") as folder:
        zeros = {spec.key: np.broadcast_to(np.zeros((), bfloat16), spec.shape) for spec in specs}
        write_tensors(folder, specs, zeros.__getitem__, 10**9)
        files.write_json(folder / "config.json", WIDE)
    command = [
        sys.executable,
        "-c",
        MEMORY,
        str(tmp_path / "model"),
        str(tmp_path),
        str(ROOT / "configs" / "release.py"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""})
    assert done.returncode == 0, done.stderr
    raised = {name: int(count) for name, count in (line.split() for line in done.stdout.splitlines())}
    model, largest = sum(spec.bytes for spec in specs), max(spec.bytes for spec in specs)
    raised["load"] -= 2 * model  # the parameters themselves: a CPU's devices have the host's memory
    bound = 3 * largest + 3 * model // 4  # the libraries take about a third of it when they are first used
    assert model > 40 * largest
    assert max(raised.values()) < bound, (raised, model, largest)
    assert min(path.stat().st_size for path in (tmp_path / "back").glob("*.safetensors")) > model
