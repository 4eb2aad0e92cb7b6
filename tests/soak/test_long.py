"""Long runs stay as they begin: memory is flat after warm-up, no step or call gets slower, and files stay bounded."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import pytest

from coi_jax.llm import ask
from coi_jax.runs.run_folder import open_run
from coi_jax.training import loop
from tests.helpers import llm_clients, tiny_models
from tests.helpers.llm_clients import Output
from tests.helpers.llm_server import running
from tests.helpers.servers import running_server
from tests.helpers.tiny_models import StandInLoader, run_config
from tests.helpers.trained_runs import make_run

Measured = Callable[..., None]
PARTS = 20  # of a run, at whose ends it is measured
WARM_UP = 0.3  # of a run: caches, pools and the allocator fill
GROWTH = 1.02  # of memory after warm-up, and
SLACK = 8 * 2**20  # bytes, which are pages of the allocator
LONG = 2000  # iterations, from which memory and time say something
SLOWER = 1.5  # the median of the last parts over that of the first ones: other work on the machine comes and goes


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@dataclass
class Course:
    """The memory and the time of each part of a run."""

    total: int
    memory: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def note(self, done: int) -> None:
        """Take note after so many iterations."""
        if done % max(1, self.total // PARTS) == 0:
            now = time.monotonic()
            self.memory.append(resident())
            self.seconds.append(now - self.began)
            self.began = now

    def figures(self) -> dict[str, Any]:
        """What is written down: megabytes, and how much slower the last third is than the first after warm-up."""
        kept = self.memory[int(WARM_UP * len(self.memory)) :]
        times = self.seconds[int(WARM_UP * len(self.seconds)) :]
        third = max(1, len(times) // 3)
        slower = statistics.median(times[-third:]) / statistics.median(times[:third])
        return {
            "warm_mib": round(kept[0] / 2**20, 1),
            "end_mib": round(kept[-1] / 2**20, 1),
            "most_mib": round(max(kept) / 2**20, 1),
            "slower": round(slower, 2),
        }

    def check(self) -> None:
        """Hold that memory is flat and no part slower; short runs say nothing."""
        if self.total < LONG:
            return
        found = self.figures()
        assert found["end_mib"] * 2**20 <= GROWTH * found["warm_mib"] * 2**20 + SLACK, (found, self.memory)
        assert found["slower"] < SLOWER, (found, self.seconds)


class WatchedLoader(StandInLoader):
    """A few batches again and again; takes note of the run at each step."""

    def __init__(self, total_steps: int, course: Course) -> None:
        super().__init__(total_steps)
        self._course = course

    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Iterator[dict[str, jax.Array]]:
        batches = [tiny_models.batch(seed=seed) for seed in range(8)]
        for step in range(start_step, self.total_steps):
            yield jax.device_put(batches[step % len(batches)], sharding)
            self._course.note(step + 1)


@pytest.mark.slow
def test_a_long_training(
    tmp_path: Path, count: Callable[[str], int], measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)
    steps = count("steps")
    every = max(1, steps // 100)
    settings: dict[str, Any] = {
        "train__length__count": steps,
        "train__log_every": every,
        "train__checkpoint_every": max(4, steps // 10),
    }
    config, course = run_config(**settings), Course(steps)
    job = loop.make_job(
        config, open_run(tmp_path, config), tiny_models.mesh(), WatchedLoader(steps, course), tiny_models.network()
    )
    compiled = job.step._cache_size()  # type: ignore[attr-defined]
    assert loop.fit(job).step == steps
    assert job.step._cache_size() == max(1, compiled)  # type: ignore[attr-defined]
    measured(steps=steps, **course.figures())
    course.check()
    assert len((tmp_path / "metrics.jsonl").read_text().split("\n")) <= steps // every + 2
    assert len(list((tmp_path / "checkpoints").iterdir())) == config.train.keep_checkpoints


@pytest.mark.slow
def test_a_long_serving(tmp_path: Path, count: Callable[[str], int], measured: Measured) -> None:
    requests = count("requests")
    course = Course(requests)
    with running_server(make_run(tmp_path).path) as server:
        for number in range(1, requests + 1):
            body = {"prompt": f"Sort {number % 50}.", "max_tokens": 4, "temperature": 0}
            assert server.post("/v1/completions", json=body).status_code == 200
            course.note(number)
        size = len(server.get("/metrics").content)
    measured(requests=requests, metrics_bytes=size, **course.figures())
    course.check()
    assert size < 100_000


@pytest.mark.slow
def test_many_calls_of_a_model(tmp_path: Path, count: Callable[[str], int], measured: Measured) -> None:
    calls = count("calls")
    course = Course(calls)
    with running(brain="echo") as server, llm_clients.client(server.url, tmp_path) as client:
        for number in range(0, calls, 100):
            waiting = [
                client.run(ask(client, llm_clients.call(f"call {number + place}"), Output))
                for place in range(min(100, calls - number))
            ]
            for future in waiting:
                future.result()
            course.note(number + 100)
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    measured(calls=calls, bytes_per_call=round(stored / calls), **course.figures())
    course.check()
    assert stored < 5000 * calls + 2**23
