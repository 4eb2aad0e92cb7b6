"""Compile a run's programs for a topology, and tell whether they fit, how fast they can be, and what they cost."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import jax

from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data import token_cache
from coi_jax.data.task_specs import training_tasks
from coi_jax.models import flops
from launch.preflight import fit, programs, roofline, topologies
from launch.preflight.fit import Attempt
from launch.preflight.programs import Memory, Program
from launch.preflight.topologies import Topology
from launch.preflight.workload import Means, Workload

PROGRAMS = ("train", "prefill", "decode")


def count_examples(config: RunConfig) -> int | None:
    """Return the examples of a config's dataset; None where it is not there."""
    try:
        return sum(token_cache.count_rows(spec) for spec in training_tasks(config)) or None
    except UserError:
        return None


def preflight(
    config: RunConfig, topology: Topology, means: Means, *, price: float | None, generation: bool
) -> dict[str, Any]:
    """Return all that is told of a config on a topology, as JSON.

    Args:
      config: of the run.
      topology: to compile for.
      means: lengths and number of examples, where no token caches are there.
      price: of a chip per hour in US dollars; None tells no cost.
      generation: whether prefill and decode are compiled too.

    Raises:
      UserError: libtpu is missing, or the mesh does not fit the topology, the batch or the network.
    """
    jax.config.update("jax_platforms", "cpu")  # where the programs are compiled, whatever else this machine has
    devices = topologies.devices(topology)
    attempts = fit.search(config, devices, topology, means)
    last = attempts[-1]
    result: dict[str, Any] = {
        "topology": _topology(topology),
        "mesh": dict(last.mesh.shape),
        "fits": last.fits,
        "fits_as_configured": attempts[0].fits,
        "flags": fit.describe(last.changes) if last.fits else None,
        "chips_needed": None if last.fits else fit.chips_needed(attempts),
        "settings": _settings(last.config),
        "attempts": [_attempt(item) for item in attempts],
        "data": _data(last.workload),
        "programs": {},
        "assumptions": [*roofline.ASSUMPTIONS, last.workload.source],
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")},
    }
    if last.fits and last.program is not None:
        made = [last.program, *(programs.compile_generation(last.config, last.mesh, topology) if generation else [])]
        result["programs"] = {program.name: _program(program, last, topology) for program in made}
        result["run"] = _run(result["programs"]["train"], last.workload, topology, price)
    return result


def _topology(topology: Topology) -> dict[str, Any]:
    return {
        "name": topology.name,
        "slices": topology.slices,
        "chips": topology.chips,
        "chip": topology.chip.name,
        "hbm_bytes": topology.hbm,
        **{
            name: value
            for name, value in dataclasses.asdict(topology.chip).items()
            if name in ("peak", "bandwidth", "ring", "network")
        },
    }


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return what decides over memory and speed."""
    return {
        "model.remat": config.model.remat,
        "model.attention": config.model.attention,
        "model.loss_chunk": config.model.loss_chunk,
        "train.microbatches": config.train.microbatches,
        "optimizer.name": config.optimizer.name,
        "lora": config.lora.model_dump() if config.lora else None,
        "data.length": config.data.length,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "flags": fit.describe(attempt.changes),
        "fits": attempt.fits,
        "compiled": attempt.program is not None,
        "memory": _memory(attempt.memory),
    }


def _memory(memory: Memory) -> dict[str, Any]:
    return {"kinds": memory.kinds, "total": memory.total, "capacity": memory.capacity, "fits": memory.fits}


def _data(load: Workload) -> dict[str, Any]:
    work = {name: float(value) for name, value in load.work._asdict().items()}
    return {
        "rows": load.rows,
        "examples_per_step": float(load.examples),
        "useful_positions": float(load.useful),
        "target_capacity": load.target_capacity,
        "steps": load.steps,
        "source": load.source,
        "work_per_step": work,
    }


def _program(program: Program, attempt: Attempt, topology: Topology) -> dict[str, Any]:
    values: dict[str, Any] = {
        "memory": _memory(program.memory),
        "compile_seconds": round(program.seconds, 1),
        "compile_cpu_seconds": round(program.cpu_seconds, 1),
    }
    if program.costs is None:
        return values
    times = roofline.estimate(program.costs, topology, attempt.mesh)
    values |= {
        "flops_per_chip": program.costs.flops,
        "memory_bytes_per_chip": program.costs.memory_bytes,
        "unknown_kernels": program.costs.kernels,
        "collectives": [
            {
                "kind": item.kind,
                "chips": len(item.group),
                "count": item.count,
                "bytes": item.bytes,
                "wire_bytes": item.wire_bytes,
            }
            for item in program.costs.collectives
        ],
        "roofline": times.to_dict(),
    }
    if program.name == "train":
        return values | _training(attempt, times, topology)
    return values | _generation(program.name, attempt, times)


def _training(attempt: Attempt, times: roofline.Estimate, topology: Topology) -> dict[str, Any]:
    network = programs.train_job(attempt.config, attempt.mesh, 1).network
    operations = flops.model_flops(attempt.workload.work, flops.costs(network))
    return {
        "model_flops": operations,
        "mfu": [roofline.mfu(operations, seconds, topology) for seconds in (times.most, times.least)],
        "examples_per_second": [attempt.workload.examples / seconds for seconds in (times.most, times.least)],
    }


def _generation(name: str, attempt: Attempt, times: roofline.Estimate) -> dict[str, Any]:
    """Return the rows of a decode step, or of the chunk of the prompts that are read together, and their speed."""
    shape = programs.GenerationShape.of(attempt.config, attempt.mesh)
    rows = shape.rows if name == "decode" else shape.prompts
    return {
        "rows": rows,
        "prompt_length": shape.length if name == "decode" else shape.chunk(attempt.config, attempt.mesh),
        "rows_per_second": [rows / seconds for seconds in (times.most, times.least)],
    }


def _run(train: Mapping[str, Any], load: Workload, topology: Topology, price: float | None) -> dict[str, Any]:
    """Hours and cost of all steps; None where their number or the price is not known."""
    bounds = (train["roofline"]["least_seconds"], train["roofline"]["most_seconds"])
    hours = [load.steps * seconds / 3600 for seconds in bounds] if load.steps else None
    cost = [price * topology.chips * time for time in hours] if hours and price is not None else None
    return {"steps": load.steps, "hours": hours, "price_per_chip_hour": price, "usd": cost}
