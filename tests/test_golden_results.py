"""Results that no change of structure may move: losses, token ids, scores, the bytes of a build and of an export.

`python -m tests.test_golden_results` writes tests/goldens/results.json again, after a change of results that was meant.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from coi_jax import convert, evaluate, train
from coi_jax.common import files
from coi_jax.config.run import load_config
from coi_jax.data import token_cache
from coi_jax.data.task_specs import evaluation_task, training_tasks
from coi_jax.families.registry import PRESETS
from coi_jax.runs.metrics_rows import read_metrics
from data_pipeline.build import __main__ as build
from data_pipeline.procedural import __main__ as procedural
from tests.helpers import tiny_models
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.xdist_group("golden")  # its fixture takes long: one worker makes it

GOLDEN = ROOT / "tests" / "goldens" / "results.json"
STEPS = 20
OPERATIONS = "reverse_words,remove_first_word,remove_last_word,keep_first_two_words,swap_first_and_last_word"
DECODER: dict[str, Any] = {}
T5: dict[str, Any] = {
    "model": PRESETS["t5_v11"] | tiny_models.T5 | {"model_dim": 64, "head_dim": 16, "mlp_dim": 128},
    "data.targets_length": 128,
}
TESTS = ("proc1_test", "proc2_test")
MEANT = (
    "results moved. A new model, loss, order of examples, preprocessing or score is a reason, and so is a version "
    "of JAX or XLA that rounds otherwise; a change of structure is none. If it is meant, run python -m "
    "tests.test_golden_results, read the diff, and say in CHANGELOG.md what moved and why"
)


def write_dataset(folder: Path) -> Path:
    counts = ["--train_count=600", "--validation_count=5", "--rephrased_count=5", "--test_count=12"]
    flags = [f"--operations={OPERATIONS}", "--max_items=5", "--phrasings=2", "--seed=0", *counts]
    assert procedural.main([f"--out={folder}", *flags]) == 0
    return folder


def overrides(folder: Path, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "data.folder": str(folder / "data"),
        "data.cache_folder": str(folder / "caches"),
        "vocabulary.size": 400,
        "train.length.count": STEPS,
        "train.log_every": 1,
        "train.checkpoint_every": STEPS,
        "evaluation.bootstrap": 100,
        "evaluation.max_new_tokens": 24,
        "mesh.fsdp": 1,
        "evaluation.tests": TESTS,
    } | more


def train_run(folder: Path, name: str, more: dict[str, Any], variant: str = "full") -> list[float]:
    """Trains for a few steps; returns the loss of each."""
    path = folder / f"{name}.json"
    values = overrides(folder, more)
    if "weights.folder" in more:  # whose vocabulary it takes
        del values["vocabulary.size"]
    config = load_config(f"{ROOT}/configs/quickstart.py:{variant}", values)
    files.write_json(path, config.model_dump(mode="json"))
    assert train.main([f"--config={path}", f"--workdir={folder / name}"]) == 0
    return [row["loss"] for row in read_metrics(folder / name / "metrics.jsonl")]


def cached_ids(folder: Path, name: str) -> dict[str, Any]:
    """The number of ids of each token cache of a run, their hash, and the first example's."""
    config = load_config(folder / name / "config.json", {})
    specs = [*training_tasks(config), *(evaluation_task(config, test) for test in TESTS)]
    found = {}
    for spec in specs:
        caches = token_cache.find(config, [spec])
        assert caches is not None
        (tokens,) = caches
        pairs = tokens.ids(range(len(tokens)))
        ids = [[pair[0].tolist(), pair[1].tolist()] for pair in pairs]
        found[spec.name] = {"examples": len(ids), "sha256": files.digest(ids), "first": ids[0]}
    return found


def scores(folder: Path, name: str) -> dict[str, Any]:
    assert evaluate.main([f"--workdir={folder / name}", f"--tasks={','.join(TESTS)}"]) == 0
    found = {}
    for test in TESTS:
        results = json.loads((folder / name / "eval" / test / "results.json").read_text())
        found[test] = {key: score["value"] for key, score in results["scores"].items()}
        found[test] |= {f"label_only_baseline {key}": value for key, value in results["label_only_baseline"].items()}
    return found


def build_bytes(folder: Path) -> dict[str, str]:
    small = {
        "seeds.test_share": 0.3,
        "pairs.tasks_per_categories": 2,
        "pairs.instances_per_tasks": 1,
        "joins.per_categories": 1,
        "joins.most": 30,
        "joins.lengths": "(3,)",
        "selection.per_categories": 2,
        "store": str(folder / "replies.sqlite"),
    }
    flags = [f"--config.{name}={value}" for name, value in small.items()]
    argv = [f"--config={ROOT / 'configs/build/procedural.py'}", f"--out={folder / 'built'}", *flags]
    assert build.main([*argv, "--source=procedural:lists"]) == 0
    return {path.name: files.sha256(path) for path in sorted((folder / "built").glob("*.jsonl"))}


def export(folder: Path, name: str) -> dict[str, Any]:
    """The files of an exported run, its config, and its tensors, whose values follow from the losses."""
    out = folder / f"{name}_export"
    assert convert.main([f"--src={folder / name}", f"--out={out}", "--dtype=float32"]) == 0
    tensors = load_file(out / "model.safetensors")
    return {
        "files": sorted(path.name for path in out.iterdir()),
        "config": json.loads((out / "config.json").read_text()),
        "tensors": {key: [str(tensor.dtype), *tensor.shape] for key, tensor in sorted(tensors.items())},
    }


def results(folder: Path) -> dict[str, Any]:
    write_dataset(folder / "data")
    return {
        "decoder_losses": train_run(folder, "decoder", DECODER),
        "t5_losses": train_run(folder, "t5", T5),
        "lora_losses": train_run(folder, "lora", {"weights.folder": str(folder / "decoder")}, "lora"),
        "scores": scores(folder, "decoder"),
        "ids": cached_ids(folder, "decoder"),  # of the test sets too, which scoring has written
        "build": build_bytes(folder),
        "export": export(folder, "decoder"),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Computed in a process of its own, which sees one device, with programs that are compiled as for users."""
    path = tmp_path_factory.mktemp("golden") / "results.json"
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    subprocess.run([sys.executable, "-m", "tests.test_golden_results", path], check=True, env=environment, cwd=ROOT)
    values: dict[str, Any] = json.loads(path.read_text())
    return values


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(GOLDEN.read_text())
    return values


@pytest.mark.parametrize("name", ["decoder_losses", "t5_losses", "lora_losses"])
def test_losses_stay(found: dict[str, Any], golden: dict[str, Any], name: str) -> None:
    assert len(found[name]) == STEPS
    np.testing.assert_allclose(found[name], golden[name], rtol=2e-5, err_msg=MEANT)


def test_ids_stay(found: dict[str, Any], golden: dict[str, Any]) -> None:
    assert found["ids"] == golden["ids"], MEANT


def test_scores_stay(found: dict[str, Any], golden: dict[str, Any]) -> None:
    for test in TESTS:
        assert found["scores"][test] == pytest.approx(golden["scores"][test], nan_ok=True), MEANT


def test_the_bytes_of_a_build_stay(found: dict[str, Any], golden: dict[str, Any]) -> None:
    assert found["build"] == golden["build"], MEANT


def test_the_export_stays(found: dict[str, Any], golden: dict[str, Any]) -> None:
    assert found["export"] == golden["export"], MEANT


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
        path.write_text(json.dumps(results(Path(temporary)), indent=1) + "\n")
