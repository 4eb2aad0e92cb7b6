"""`python -m tests.helpers.two_process_worker FOLDER STAGE`: what each of two processes does, as the commands do it.

Stage `stop` begins to train, slowly, until SIGTERM, and saves every other step; stage `end` trains to the end,
evaluates and answers a question. The token caches are written by a stand-in for the child process that has TensorFlow.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from coi_jax import evaluate, generate, train
from coi_jax.common import cli
from coi_jax.config.run import RunConfig
from coi_jax.data import token_cache
from coi_jax.data.loader import Loader
from coi_jax.data.task_specs import TaskSpec
from coi_jax.parallel import hardware
from tests.helpers.token_caches import write_caches

QUESTION = ("--instruction=Rotate by 0. and then Rotate by 1.", "--input=pear fig plum")


def commands(folder: Path, stage: str) -> list[Callable[[], int]]:
    """The commands of a stage, one after the other."""
    workdir = f"--workdir={folder / 'run'}"
    training = ["--config", str(folder / "config.json"), workdir]
    if stage == "stop":
        often = "--config.train.checkpoint_every=2"
        return [lambda: train.main([*training, "--config.mesh.fsdp=3"]), lambda: train.main([*training, often])]
    return [
        lambda: train.main(training),
        lambda: evaluate.main([workdir, "--tasks=proc2_test"]),
        lambda: generate.main([workdir, *QUESTION, "--json"]),
    ]


def write_missing(folder: Path, config: RunConfig, specs: Sequence[TaskSpec], _: Path | None) -> None:
    """Stands in for `python -m data_pipeline.cache`, and notes who called it."""
    with open(folder / "writers.txt", "a", encoding="utf-8") as file:
        file.write(f"{jax.process_index()}\n")
    write_caches(config, specs)


def slowly(iterate: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """A loader's `iterate` that leaves time for a signal to arrive."""

    def wait(self: Loader, *arguments: Any) -> Iterator[Any]:
        for batch in iterate(self, *arguments):
            time.sleep(0.4)
            yield batch

    return wait


def prepare(folder: Path) -> None:
    """What makes the commands quick on this machine; nothing of it depends on the number of processes."""
    hardware.matmul_peak = lambda dtype: 1e12
    token_cache._write_in_child = lambda *arguments: write_missing(folder, *arguments)


if __name__ == "__main__":
    place, stage = Path(sys.argv[1]), sys.argv[2]
    prepare(place)
    if stage == "stop":
        Loader.iterate = slowly(Loader.iterate)  # type: ignore[method-assign]
    found = [cli.run(command) for command in commands(place, stage)]
    (place / f"{stage}.{os.environ['JAX_PROCESS_ID']}.json").write_text(json.dumps(found))
