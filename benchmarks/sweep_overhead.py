"""Measures what a sweep takes besides its train steps and its answers: start-up, compilation, loading, saving, scoring.

  python -m benchmarks.sweep_overhead --sweep configs/sweeps/quickstart.py --config.train.length.count=300

Runs the sweep from nothing in a temporary folder, all points in one process, and adds up the steps of all runs and the
times in which answers were generated. Token caches and data must be there: a first run writes them. Prints JSON.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from coi_jax.common import cli, files


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--sweep", required=True, help="a file of configs/sweeps/")
    arguments = parser.parse_args(rest)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "launch.sweep", "--sweep", arguments.sweep, "--backend", "local"]
        started = time.perf_counter()
        subprocess.run([*command, "--out", folder, *cli.override_flags(overrides)], check=True, stdout=sys.stderr)
        wall = time.perf_counter() - started
        report = {"sweep": arguments.sweep} | describe(wall, Path(folder))
    print(json.dumps({"benchmark": "sweep_overhead"} | machine.describe() | report, indent=2))
    return 0


def describe(wall: float, folder: Path) -> dict[str, Any]:
    """Return the seconds of a whole sweep beside those of its steps and its answers.

    Args:
      wall: seconds of the sweep.
      folder: of its runs.
    """
    runs = sorted(path.parent for path in folder.glob("*/config.json"))
    steps = {run.name: step_seconds(run) for run in runs}
    answers = {run.name: answer_seconds(run) for run in runs}
    pure = sum(steps.values()) + sum(answers.values())
    return {
        "seconds": round(wall, 1),
        "step_seconds": {name: round(value, 1) for name, value in steps.items()},
        "answer_seconds": {name: round(value, 1) for name, value in answers.items()},
        "over_steps_and_answers": round(wall / pure, 3),
    }


def step_seconds(run: Path) -> float:
    """Return the time of a run's train steps: each line of its metrics tells the mean since the line before."""
    total, before = 0.0, 0
    for row in files.read_jsonl(run / "metrics.jsonl", "metrics") if (run / "metrics.jsonl").exists() else ():
        if "seconds_per_step" in row:
            total += (row["step"] - before) * row["seconds_per_step"]
            before = row["step"]
    return total


def answer_seconds(run: Path) -> float:
    """Return the time in which a run's answers were generated, the compilation of their programs included."""
    rows = (row for path in run.glob("eval/*/timing.jsonl") for row in files.read_jsonl(path, "timing"))
    return sum(float(row["seconds"]) for row in rows)


if __name__ == "__main__":
    sys.exit(cli.run(main))
