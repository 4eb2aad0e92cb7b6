"""Measures a build: a whole dry run, the rules over all pairs of tasks, and calls of a language model.

  python -m benchmarks.build_speed --part dry_run
  python -m benchmarks.build_speed --part rules
  python -m tests.helpers.llm_server --port 8000 --delay 0.2 --brain reader   (in another shell)
  python -m benchmarks.build_speed --part calls --base_url http://127.0.0.1:8000

Prints JSON. `dry_run` runs the command with `--dry_run` on an Alpaca file of --number made-up rows. `rules` judges the
ordered pairs of as many tasks as the paper has, of every category in turn, in the build's own stage. `calls` asks for a
short instruction of each of --number tasks, in the build's own stage; what could be reached is the endpoint's rate:
calls in flight / seconds that a reply takes.
"""

import contextlib
import functools
import io
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.llm.settings import EndpointConfig
from data_pipeline.build import __main__ as build
from data_pipeline.build import build_job, config_loading, llm_stages, rules
from data_pipeline.build.asking.ask_transform import EndpointAnswerer
from data_pipeline.build.drafts import Instance, Seed
from data_pipeline.build.engine.stage_runner import OUT, Stage, StageRunner, rows_of
from data_pipeline.build.stages import pairing

TASKS = 1341  # of the paper (section 3)
ALPACA_ROWS = 52_000
WORDS = tuple(
    f"{first}{last}" for first in ("ka", "lo", "mi", "nu", "pe", "ri", "su", "ta") for last in "bdfgklmnprstvz"
)
PAGE = os.sysconf("SC_PAGE_SIZE")


def seeds(number: int) -> Iterator[Seed]:
    """Yield tasks of every category in turn, with ten instances each."""
    categories = sorted(rules.load().categories)
    for task in range(number):
        name, category = f"task{task}", categories[task % len(categories)]
        given = tuple(Instance(f"{name}-{k}", f"text {k} of {name}", f"output {k} of {name}") for k in range(10))
        words = f"You are given text {task}. Do what a task of the category {category} asks for."
        yield Seed(name, "benchmark", "", name, "train", category, words, "", (), "", False, given)


def stage_of(folder: str, number: int) -> Stage:
    """Return seeds as a complete stage."""
    path = Path(folder, "seeds")
    path.mkdir()
    with open(path / "out-0.jsonl", "w", encoding="utf-8") as file:
        for seed in seeds(number):
            files.append_jsonl(file, seed.row())
    return Stage("seeds", str(path), "", {OUT: number})


def alpaca_row(number: int) -> dict[str, str]:
    """Return a row with an instruction of its own, as long as those of Alpaca; two rows of five have an input."""
    chance = random.Random(number)

    def text(fewest: int, most: int) -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(fewest, most)))

    given = text(5, 40) if number % 5 < 2 else ""
    return {"instruction": f"Write {number} {text(5, 15)}.", "input": given, "output": text(5, 90)}


def measure_dry_run(folder: str, rows: int) -> dict[str, Any]:
    """Return seconds and memory of `data_pipeline.build --dry_run` on a file of Alpaca's form.

    The share of tasks for tests is the config's, and every row is a task of its own, as nearly all of Alpaca's are.
    """
    os.environ |= {"OPENAI_API_KEY": "any", "COI_LLM_MODEL": "any", "OPENAI_BASE_URL": "http://127.0.0.1:9"}
    source = Path(folder, "alpaca.json")
    files.write_json(source, [alpaca_row(number) for number in range(rows)])
    command = ["--config=configs/build/super_ni.py", f"--source=alpaca:{source}", f"--out={folder}/built"]
    printed, began, began_cpu = io.StringIO(), time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(printed):
        build.main([*command, f"--config.store={folder}/replies.sqlite", "--dry_run", "--json"])
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    stages = {line["stage"]: line["most_calls"] for line in json.loads(printed.getvalue())}
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_gib": round(peak_gib(), 2),
        "tasks": stages["instructions"],
        "candidates": stages["checks-2"],
    }


def measure_rules(folder: str, tasks: int) -> dict[str, Any]:
    """Return the seconds and memory of the stage that judges all pairs, and the number of pairs."""
    config, given = config_loading.load("configs/build/procedural.py", {}).pairs, stage_of(folder, tasks)
    runner = StageRunner(folder, [build_job.RUNNER])
    began = time.perf_counter()
    stage = runner.run("pairs", None, [given], lambda start: pairing.pair(start | rows_of(given), config, 0))
    seconds = time.perf_counter() - began
    (counts,) = stage.read(pairing.COUNTS)
    return {
        "pairs": sum(row[-1] for row in counts["counts"]),
        "seconds": round(seconds, 1),
        "candidates": stage.counts[OUT],
        "peak_gib": round(peak_gib(), 2),
    }


def measure_calls(folder: str, endpoint: EndpointConfig, number: int, latency: float) -> dict[str, Any]:
    """Return the calls per second, their share of the endpoint's rate, and the memory over time.

    Args:
      folder: for the replies and the stage.
      endpoint: to ask.
      number: of calls.
      latency: seconds that a reply takes, from which the endpoint's rate follows.
    """
    given = stage_of(folder, number)
    make = functools.partial(EndpointAnswerer, endpoint, f"{folder}/replies.sqlite", f"{folder}/spending", None, False)
    entry = llm_stages.find("instructions")
    assert entry
    runner = StageRunner(folder, [build_job.RUNNER])
    with Memory() as memory:
        began = time.perf_counter()
        stage = runner.run(
            "instructions",
            None,
            [given],
            lambda start: llm_stages.ask(entry, start | rows_of(given), ("benchmark", make), None),
            number,
        )
        seconds = time.perf_counter() - began
    possible = endpoint.concurrency / latency
    return {
        "calls": number,
        "answered": stage.counts[OUT],
        "seconds": round(seconds, 1),
        "calls_per_second": round(number / seconds, 1),
        "possible": possible,
        "share": round(number / seconds / possible, 3),
        "memory_gib": memory.tenths(),
    }


class Memory:
    """Resident memory of this process, seen every second."""

    def __init__(self) -> None:
        self._seen: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1):
            self._seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**30)

    def tenths(self) -> list[float]:
        """Return the GiB after each tenth of the time."""
        return [round(self._seen[len(self._seen) * part // 10 - 1], 2) for part in range(1, 11)] if self._seen else []


def peak_gib() -> float:
    """Return the most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = cli.parser(__doc__)
    parser.add_argument("--part", choices=("dry_run", "rules", "calls"), required=True)
    parser.add_argument(
        "--number",
        type=cli.integer,
        help="rows of dry_run, tasks of rules, calls of calls; else 52000, 1341, 50000",
    )
    parser.add_argument("--base_url", default="", help="of the endpoint that calls go to")
    parser.add_argument("--latency", type=cli.number, default=0.2, help="seconds that its reply takes")
    arguments = parser.parse_args(argv)
    parts: dict[str, Callable[[str], dict[str, Any]]] = {
        "dry_run": lambda folder: measure_dry_run(folder, arguments.number or ALPACA_ROWS),
        "rules": lambda folder: measure_rules(folder, arguments.number or TASKS),
        "calls": lambda folder: measure_calls(
            folder, _endpoint(arguments.base_url), arguments.number or 50_000, arguments.latency
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        found = parts[arguments.part](folder)
    print(json.dumps({"benchmark": f"build {arguments.part}"} | machine.describe() | found, indent=2))
    return 0


def _endpoint(base_url: str) -> EndpointConfig:
    if not base_url:
        raise UserError("base_url", base_url, "name an endpoint on this machine: this makes many calls")
    os.environ.setdefault("OPENAI_API_KEY", "any")
    endpoint = config_loading.load("configs/build/procedural.py", {}).endpoint
    return endpoint.model_copy(update={"base_url": base_url, "model": "any"})


if __name__ == "__main__":
    sys.exit(cli.run(main))
