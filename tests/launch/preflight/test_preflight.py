import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import pytest

from coi_jax.common import cli, files
from coi_jax.models import build, flops
from coi_jax.training.loop import TrainingJob
from launch.preflight import __main__ as preflight
from launch.preflight import analysis, programs
from launch.preflight.hlo_costs import Costs
from launch.preflight.programs import Memory, Program
from launch.preflight.text_report import render, span
from launch.preflight.topologies import GIB, Topology
from launch.sweep.forecast import cells
from tests.helpers.tiny_models import run_config

pytestmark = [pytest.mark.tpu, pytest.mark.xdist_group("preflight")]  # its fixtures take long: one worker makes them

ROWS, LENGTH = 16, 128
CONFIG = run_config(
    data__folder="nowhere",
    data__batch__rows=ROWS,
    data__length=LENGTH,
    model__attention="xla",
    model__dtype="bfloat16",
    model__model_dim=64,
    model__head_dim=32,
    model__mlp_dim=128,
    evaluation__max_new_tokens=8,
    evaluation__batch=8,
)
MEANS = ["--inputs=50", "--targets=14", "--examples=160"]
CHIPS = 4


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preflight") / "config.json"
    files.write_json(path, CONFIG.model_dump(mode="json"))
    return path


@pytest.fixture(scope="module")
def result(config_file: Path) -> dict[str, Any]:
    """Of a tiny decoder on four chips."""
    out = config_file.with_name("result.json")
    argv = [f"--config={config_file}", "--topology=v5e:2x2", f"--out={out}", "--price=1.2", *MEANS]
    assert preflight.main(argv) == 0
    values: dict[str, Any] = files.read_json(out)
    return values


def test_a_sweep_reads_the_result(result: dict[str, Any]) -> None:
    fits, memory, hours, usd = cells(result)
    assert (fits, float(memory) >= 0) == ("yes", True)
    assert hours == span(result["run"]["hours"], ".2f")
    assert usd == span(result["run"]["usd"], ".2f")


def test_the_result_is_written_into_a_bucket(
    config_file: Path, result: dict[str, Any], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "preflight", lambda *_, **__: result)
    out = f"{bucket}/results/tiny.json"
    assert preflight.main([f"--config={config_file}", "--topology=v5e:2x2", f"--out={out}", "--json", *MEANS]) == 0
    assert files.read_json(out)["programs"] == result["programs"]


def test_memory_adds_up_and_parameters_are_divided(result: dict[str, Any]) -> None:
    train = result["programs"]["train"]["memory"]
    assert train["total"] == sum(train["kinds"].values())
    shapes = [leaf.shape for leaf in jax.tree.leaves(build(CONFIG.model, 259, None).abstract())]
    norms = [shape for shape in shapes if shape in ((64,), (2, 64))]
    divided = sum(map(math.prod, shapes)) - sum(map(math.prod, norms))
    assert train["kinds"]["parameters"] == 4 * (divided / CHIPS + sum(map(math.prod, norms)))
    assert train["kinds"]["optimizer"] == pytest.approx(2 * train["kinds"]["parameters"], abs=64)
    assert train["kinds"]["batch"] == 5 * ROWS * LENGTH * 4 / CHIPS
    for program in ("prefill", "decode"):
        memory = result["programs"][program]["memory"]
        # Matrices in the compute dtype, bfloat16, which is what the generator holds.
        assert memory["kinds"]["parameters"] == 2 * divided / CHIPS + 4 * sum(map(math.prod, norms))
        assert memory["fits"]


def test_operations_are_those_of_all_positions_and_the_head_is_for_targets(result: dict[str, Any]) -> None:
    costs = flops.costs(build(CONFIG.model, 259, None))
    targets = CHIPS * result["data"]["target_capacity"]
    assert targets == pytest.approx(1.25 * 0.99 * ROWS * LENGTH * 14 / 64, abs=CHIPS)
    everything = ROWS * LENGTH * costs.token + ROWS * LENGTH**2 * costs.pair + targets * costs.target
    assert result["programs"]["train"]["flops_per_chip"] * CHIPS == pytest.approx(everything, rel=0.02)
    useful = result["data"]["work_per_step"]
    assert useful["tokens"] == pytest.approx(ROWS * LENGTH * 0.99, rel=1e-6)
    assert result["programs"]["train"]["model_flops"] < everything


def test_collectives_gather_weights_in_every_layer(result: dict[str, Any]) -> None:
    for program in ("train", "decode"):
        received = sum(item["wire_bytes"] for item in result["programs"][program]["collectives"])
        weights = 2 * (4 * 64 * 128 + 3 * 64 * 128) * 2  # bfloat16: attention and MLP of two layers
        assert received > 0.5 * weights * (2 if program == "train" else 1)


def test_time_and_cost_follow_from_the_roofline(result: dict[str, Any]) -> None:
    train, run = result["programs"]["train"], result["run"]
    times = train["roofline"]
    assert times["least_seconds"] == max(times[f"{part}_seconds"] for part in ("compute", "memory", "exchange"))
    assert train["mfu"][1] == pytest.approx(train["model_flops"] / (times["least_seconds"] * CHIPS * 197e12))
    assert run["steps"] == 10
    assert run["usd"] == pytest.approx([1.2 * CHIPS * hours for hours in run["hours"]])
    assert run["hours"][0] == pytest.approx(10 * times["least_seconds"] / 3600)


def test_people_read_the_same(result: dict[str, Any], config_file: Path) -> None:
    text = render(result)
    assert text.startswith(f"{config_file} on v5e:2x2: 4 × TPU v5e, mesh replica 1 × fsdp 4 × tensor 1 × sequence 1")
    assert "fits as configured" in text
    for assumption in result["assumptions"]:
        assert assumption in text
    assert max(map(len, text.splitlines())) < 200


@pytest.fixture
def without_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train steps take a GiB for each thing that their backward pass keeps."""

    def compile_train(job: TrainingJob, rows: int, topology: Topology) -> Program:
        kept = {"none": 3, "dots_attention": 2}.get(job.config.model.remat, 1)
        memory = Memory({"parameters": 0, "temporaries": kept * GIB}, topology.hbm)
        return Program("train", memory, Costs(1e12, 1e9, (), 0), 0.0, 0.0)

    monkeypatch.setattr(programs, "compile_train", compile_train)


def test_where_it_does_not_fit_it_names_what_does(
    without_compiling: None, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [f"--config={config_file}", "--topology=v5e-4", "--hbm=1.5", "--train_only", *MEANS]
    assert preflight.main([*argv, "--json"]) == preflight.EXIT_DOES_NOT_FIT
    answer = json.loads(capsys.readouterr().out)
    assert (answer["fits"], answer["fits_as_configured"]) == (True, False)
    assert answer["flags"] == "--config.model.remat=dots"
    assert [item["memory"]["total"] / GIB for item in answer["attempts"]] == [3, 2, 1]
    assert answer["settings"]["model.remat"] == "dots"
    assert "does not fit as configured; fits with --config.model.remat=dots\n" in render(answer)
    assert preflight.main([*argv, answer["flags"]]) == 0


def test_where_nothing_fits_it_says_what_the_state_needs(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [f"--config={config_file}", "--topology=v5e-4", "--hbm=0.0002", *MEANS]
    assert preflight.main(argv) == preflight.EXIT_DOES_NOT_FIT
    said = capsys.readouterr().out
    assert re.search(r"does not fit, nor with anything tried; its state alone needs at least \d+ such chips", said)
    assert "assuming that" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--topology=v5e-17"], "topology: v5e-17: unknown; one of v4-8 (v4:2x2x1), "),
        (
            ["--topology=v5e-4", "--config.mesh.fsdp=8"],
            "config.mesh: replica 1 × fsdp 8 × tensor 1 × sequence 1: does not make 4 devices",
        ),
        (["--topology=v5e-4", "--slices=2", "--config.mesh.replica=3"], "config.mesh"),
        (["--topology=v5e-4", "--config.data.batch.rows=6"], "config.data.batch.rows: 6: must be a multiple"),
    ],
)
def test_a_mistake_is_one_line(
    config_file: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(lambda: preflight.main([f"--config={config_file}", *arguments, *MEANS])) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {says}")
    assert error.count("\n") == 1


def test_the_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        preflight.main(["--help"])
    assert capsys.readouterr().out.count("\n") <= 45
