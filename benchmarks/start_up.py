"""Measures the time from launching a training to the end of its first optimizer step, cold and warm.

  python -m benchmarks.start_up --config configs/quickstart.py --config.data.folder=data/quickstart

Prints JSON: `cold_seconds` begins with no token cache and no compiled program, `warm_seconds` are of the launches after
it, each into a run folder of its own. A step is over when it is in metrics.jsonl. Everything is written into a folder
that is removed at the end.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from coi_jax.common import cli

POLL_SECONDS = 0.02


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its JSON."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="a config file; --config.field=value changes it")
    parser.add_argument("--repeats", type=cli.positive_int, default=3, help="warm launches")
    arguments = parser.parse_args(rest)
    with tempfile.TemporaryDirectory() as folder:
        cold, *warm = (
            launch(arguments.config, overrides, Path(folder), f"run{number}") for number in range(arguments.repeats + 1)
        )
    found = {"cold_seconds": round(cold, 2), "warm_seconds": [round(seconds, 2) for seconds in warm]}
    median = {"warm_median": round(statistics.median(warm), 2)}
    print(json.dumps({"benchmark": "start_up", "config": arguments.config, **machine.describe(), **found, **median}))
    return 0


def launch(config: str, overrides: Mapping[str, Any], folder: Path, run: str) -> float:
    """Train two steps and return the seconds until the first is logged.

    Args:
      config: the config file.
      overrides: of its fields.
      folder: for the run, token caches and compiled programs.
      run: name of the run folder in it.

    Raises:
      RuntimeError: the training ended before its first step.
    """
    fixed = {"train.length.unit": "steps", "train.length.count": 2, "train.log_every": 1}
    fields = fixed | {"data.cache_folder": str(folder / "caches")} | dict(overrides)
    command = [sys.executable, "-m", "coi_jax.train", "--config", config, "--workdir", str(folder / run)]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        seconds = _wait(process, folder / run / "metrics.jsonl", start)
        process.communicate()  # the next launch has the machine alone
    return seconds


def _wait(process: subprocess.Popen[bytes], log: Path, start: float) -> float:
    while not (log.exists() and log.stat().st_size):
        if process.poll() is not None and not log.exists():
            assert process.stderr is not None
            raise RuntimeError(process.stderr.read().decode(errors="replace")[-2000:])
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(cli.run(main))
