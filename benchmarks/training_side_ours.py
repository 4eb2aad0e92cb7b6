"""This project's side of the training benchmarks: the trainer's own step on packed batches."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import sides
from coi_jax.config.run import validate
from coi_jax.models import build
from coi_jax.parallel import hardware, sharding
from coi_jax.parallel.processes import start_jax
from coi_jax.runs.run_folder import RunFolder
from coi_jax.training import loop
from coi_jax.training import step as train_step
from coi_jax.weights import peft


class Batches:
    """The batches of a file, [steps, rows, length] under each name."""

    fingerprint = "benchmark"

    def __init__(self, path: Path) -> None:
        self._arrays = dict(np.load(path))
        self.total_steps = len(self._arrays["tokens"])

    @property
    def target_capacity(self) -> int:
        """Return the most targets of a batch, all of which one device has."""
        return int((self._arrays["weights"] != 0).sum((1, 2)).max())

    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Iterator[dict[str, jax.Array]]:
        """See `coi_jax.training.loop.Batches`."""
        for step in range(start_step, self.total_steps):
            yield jax.device_put({name: array[step] for name, array in self._arrays.items()}, sharding)

    def example_ids(self, step: int) -> list[str]:
        """See `coi_jax.training.loop.Batches`; the file has none."""
        return []


class Ours:
    """The job of a run whose weights and batches are given; its adapters are written down, if it has some."""

    def __init__(self, settings: dict[str, Any]) -> None:
        start_jax()
        config = validate(settings["config"])
        network = build(config.model, config.model.vocabulary_size or 0, config.lora)
        batches = Batches(Path(settings["batches"]))
        run = RunFolder(Path(settings["folder"]))
        mesh = sharding.make_mesh(config.mesh)
        capacity = batches.target_capacity if mesh.size == 1 and config.train.microbatches == 1 else None
        self._job = loop.make_job(config, run, mesh, batches, network, capacity)
        with jax.set_mesh(self._job.mesh):
            params, frozen = self._job.initial_weights.load(self._job.mesh)
            self._state = train_step.initial_state(params, frozen, self._job.optimizer, self._job.shardings)
        if network.lora:
            peft.export(Path(settings["adapters"]), network, self._state.params, config.weights.folder or "")

    def steps(self, first: int, count: int) -> dict[str, Any]:
        """Take some optimizer steps; their seconds together, and the loss of each."""
        losses = []
        with jax.set_mesh(self._job.mesh):
            began = time.perf_counter()
            batches = self._job.loader.iterate(first, sharding.batch_sharding(self._job.mesh))
            for _, batch in zip(range(count), batches, strict=False):
                self._state, metrics = self._job.step(self._state, batch)
                losses.append(metrics.loss)
            jax.block_until_ready(self._state)
            seconds = time.perf_counter() - began
        return {"seconds": seconds, "losses": [float(loss) for loss in losses], "memory": memory()}

    def device(self) -> dict[str, Any]:
        """Return what it runs on, and the operations a second of its matrix products."""
        kind = jax.devices()[0].device_kind
        return {"device": kind, "peak": hardware.matmul_peak(self._job.config.model.dtype)}


def memory() -> int:
    """Return the most bytes that were in use at once: of the accelerator's memory, on a CPU of the process."""
    statistics = jax.devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else sides.peak_memory()


if __name__ == "__main__":
    sides.serve(Ours)
