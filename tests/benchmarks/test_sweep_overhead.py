import json
from pathlib import Path
from typing import Any

from benchmarks.sweep_overhead import describe


def write_lines(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def test_a_sweep_stands_beside_its_steps_and_answers(tmp_path: Path) -> None:
    for name in ("coi1", "coi12"):
        write_lines(tmp_path / name / "config.json", {})
    steps = [{"step": 10, "seconds_per_step": 0.5}, {"step": 10, "validation_loss": 1.0}]
    write_lines(tmp_path / "coi1" / "metrics.jsonl", *steps, {"step": 14, "seconds_per_step": 1.0})
    write_lines(tmp_path / "coi12" / "eval" / "proc1_test" / "timing.jsonl", {"seconds": 1.5}, {"seconds": 0.5})
    report = describe(22.0, tmp_path)
    assert report["step_seconds"] == {"coi1": 9.0, "coi12": 0.0}
    assert report["answer_seconds"] == {"coi1": 0.0, "coi12": 2.0}
    assert report["over_steps_and_answers"] == 2.0
