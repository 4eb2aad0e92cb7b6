import json
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.data.arms import find_arm
from coi_jax.reporting.costs import Cost, read_cost, step_seconds
from coi_jax.reporting.run_records import load, read
from tests.helpers.scored_runs import write_run

SCORES = {"coi2_test": {"rouge_l": 60.0}}
TPU = {"platform": "tpu", "kind": "TPU v5e", "devices": 8, "cores": 100}
CPU = {"platform": "cpu", "kind": "cpu", "devices": 1, "cores": 2}
STEPS = [
    {"step": 10, "seconds_per_step": 2.0},
    {"step": 10, "validation_loss": 1.0},
    {"step": 20, "seconds_per_step": 1.0},
]


def write_records(run: Path, machine: dict[str, Any], steps: list[dict[str, Any]], answering: list[float]) -> None:
    """The records of a run's training, and of the evaluations of its test set."""
    devices = {"platform": machine["platform"], "kind": machine["kind"], "count": machine["devices"]}
    files.write_json(run / "environment.json", {"devices": devices, "cores": machine["cores"]})
    files.write_text(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in steps))
    lines = "".join(json.dumps({"seconds": seconds, "answers": 1, **machine}) + "\n" for seconds in answering)
    files.write_text(run / "eval" / "coi2_test" / "timing.jsonl", lines)


def cost(run: Path, arm: str = "coi12", price: float | None = None, faults: list[UserError] | None = None) -> Cost:
    return read_cost(epath.Path(run), "coi2_test", find_arm(arm), price, [] if faults is None else faults)


def test_devices_are_counted_and_paid_for_by_the_hour(tmp_path: Path) -> None:
    write_records(tmp_path, TPU, STEPS, [15.0, 30.0])
    found = cost(tmp_path, price=1.2)
    assert found["training"] == {"seconds": 30.0, "device": "8 TPU v5e", "device_seconds": 240.0}
    assert found["evaluation"] == {"seconds": 45.0, "device": "8 TPU v5e", "device_seconds": 360.0}
    assert found["usd"] == pytest.approx(1.2 * 600 / 3600)
    assert cost(tmp_path)["usd"] is None


def test_on_a_cpu_cores_are_counted(tmp_path: Path) -> None:
    write_records(tmp_path, CPU, STEPS, [3.0])
    found = cost(tmp_path, price=3.6)
    assert found["training"] == {"seconds": 30.0, "device": "2 CPU cores", "core_seconds": 60.0}
    assert found["usd"] == pytest.approx(66.0 / 1000)


def test_a_prompted_baseline_has_no_training_and_the_earlier_calls_count(tmp_path: Path) -> None:
    write_records(tmp_path, CPU, [], [3.0])
    files.write_text(
        tmp_path / "eval" / "coi2_test" / "decompose" / "timing.jsonl", json.dumps({"seconds": 4.0, **CPU})
    )
    assert cost(tmp_path, "cot", 3600.0) == {
        "training": None,
        "evaluation": {"seconds": 3.0, "device": "2 CPU cores", "core_seconds": 6.0},
        "usd": 6.0,
    }
    assert cost(tmp_path, "ltm", 3600.0)["usd"] == 14.0


@pytest.mark.parametrize("damage", ["metrics.jsonl", "environment.json", "eval/coi2_test/timing.jsonl"])
@pytest.mark.parametrize("text", ["{", '{"step": 1, "seconds": "x", "seconds_per_step": 1, "devices": 3}\n'])
def test_what_is_not_known_is_no_number_and_a_damaged_file_is_named(tmp_path: Path, damage: str, text: str) -> None:
    faults: list[UserError] = []
    write_records(tmp_path, CPU, STEPS, [3.0])
    (tmp_path / damage).write_text(text if damage != "metrics.jsonl" else text.replace('"step": 1', '"step": "x"'))
    found = cost(tmp_path, price=1.0, faults=faults)
    assert found["usd"] is None
    assert [found["training"], found["evaluation"]].count(None) == 1
    assert [damage in str(fault) for fault in faults] == [True]
    faults.clear()
    (tmp_path / damage).unlink()
    assert cost(tmp_path, price=1.0, faults=faults) == found
    assert [f"{damage}: no such file" in str(fault) for fault in faults] == [True] * (not damage.startswith("eval"))


def test_a_run_of_converted_weights_or_of_scores_alone_has_no_cost_and_no_fault(tmp_path: Path) -> None:
    faults: list[UserError] = []
    assert cost(tmp_path, faults=faults)["training"] is None
    files.write_json(tmp_path / "environment.json", {"converted_from": "x", "data": {"sha256": None}})
    assert cost(tmp_path, faults=faults)["training"] is None
    assert not faults


@pytest.mark.parametrize("damage", ["metrics.jsonl", "environment.json", "eval/coi2_test/timing.jsonl"])
def test_a_damaged_file_of_costs_is_named_once_and_the_scores_stand(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "a", {"arm": "coi12"}, SCORES | {"coi3_test": {"rouge_l": 50.0}})
    write_records(run, CPU, STEPS, [3.0])
    (run / damage).write_text("{")
    assert len(read([tmp_path]).rows) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cost or commit left out: ")
    assert str(run / damage) in line


def test_runs_of_earlier_versions_name_no_cores(tmp_path: Path) -> None:
    write_records(tmp_path, CPU | {"cores": None}, STEPS, [])
    assert cost(tmp_path, price=1.0)["training"] == {"seconds": 30.0, "device": "CPU cores", "core_seconds": None}
    assert cost(tmp_path, price=1.0)["usd"] is None


@pytest.mark.parametrize(
    ("rows", "due"),
    [
        ([], None),
        ([{"step": 4, "loss": 1.0}], None),
        ([{"step": 1, "loss": 1.0}, {"step": 5, "seconds_per_step": 2.0}], 10.0),
        ([{"step": 5, "seconds_per_step": 2.0}, {"step": 6, "loss": 1.0}], 12.0),
    ],
)
def test_steps_without_a_time_are_as_long_as_others(rows: list[dict[str, Any]], due: float | None) -> None:
    assert step_seconds(rows) == due


def test_every_cell_tells_what_it_took(tmp_path: Path) -> None:
    write_records(write_run(tmp_path / "a", {"arm": "coi12"}, SCORES), TPU, STEPS, [15.0])
    cell = read([tmp_path], 3600.0).cell("coi12", "coi2_test", "rouge_l")
    assert cell is not None
    assert [source["cost"]["usd"] for source in cell.to_dict()["sources"]] == [360.0]
    assert load([tmp_path]).rows[0].cost["usd"] is None
