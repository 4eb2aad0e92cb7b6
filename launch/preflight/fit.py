"""A search for changes of a config so that its train step fits into a chip's memory, the least costly first."""

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from jax.sharding import Mesh

from coi_jax.common.errors import UserError
from coi_jax.config.model import Remat
from coi_jax.config.run import RunConfig, validate
from coi_jax.parallel import sharding
from launch.preflight import programs, workload
from launch.preflight.programs import Memory, Program
from launch.preflight.topologies import GIB, Topology
from launch.preflight.workload import Means, Workload

REMAT = get_args(Remat)  # from what keeps most to what keeps least
Changes = dict[str, Any]  # dotted fields of the config


@dataclass(frozen=True)
class Attempt:
    """A config with some changes, and what its train step takes; only its state's memory where that is too much."""

    changes: Changes
    config: RunConfig
    mesh: Mesh
    workload: Workload
    program: Program | None
    memory: Memory

    @property
    def fits(self) -> bool:
        """Return whether the train step can run."""
        return self.program is not None and self.memory.fits


def search(config: RunConfig, devices: list[Any], topology: Topology, means: Means) -> list[Attempt]:
    """Return attempts up to the first that fits; the config itself is the first of them.

    Args:
      config: of the run.
      devices: of the topology.
      topology: to compile for.
      means: lengths and number of examples, where no token caches are there.

    Raises:
      UserError: the mesh of the config itself does not fit the topology, its rows or its network.
    """
    attempts = [attempt(config, {}, devices, topology, means)]
    hopeless = set()  # meshes on which the state alone is too large
    for changes in candidates(config, topology.chips, means):
        if attempts[-1].program is None:
            hopeless.add(_mesh_of(attempts[-1].changes))
        if attempts[-1].fits:
            break
        if _mesh_of(changes) not in hopeless:
            with contextlib.suppress(UserError):  # the network cannot be divided so
                attempts.append(attempt(config, changes, devices, topology, means))
    return attempts


def _mesh_of(changes: Changes) -> tuple[Any, ...]:
    return tuple(changes.get(f"mesh.{axis}", "") for axis in sharding.MESH_AXES)


def candidates(config: RunConfig, chips: int, means: Means) -> Iterator[Changes]:
    """Yield what is tried: to keep less for the backward pass, then to take the rows in more parts, then other meshes.

    On another mesh the rows are taken whole, then one by one.

    Args:
      config: of the run.
      chips: in the topology.
      means: lengths and number of examples, where no token caches are there.
    """
    remats = [{"model.remat": remat} for remat in REMAT[REMAT.index(config.model.remat) + 1 :]]
    yield from remats
    least = remats[-1] if remats else {}
    yield from ({**least, **more} for more in _accumulations(config, {}, chips, means))
    for mesh in _meshes(config, chips):
        yield {**least, **mesh}
        yield from ({**least, **mesh, **more} for more in [*_accumulations(config, mesh, chips, means)][-1:])


def _accumulations(config: RunConfig, mesh: Changes, chips: int, means: Means) -> Iterator[Changes]:
    """More microbatches, up to the rows of a device."""
    try:
        sizes = override(config, mesh).mesh.sizes(chips)
        parts = sizes[0] * sizes[1]
        rows = workload.measure(override(config, {"train.microbatches": 1}), (parts, 1), means).rows // parts
    except UserError:
        return
    number = 2 * config.train.microbatches
    while number < rows:
        yield {"train.microbatches": number}
        number *= 2
    if rows > config.train.microbatches:
        yield {"train.microbatches": rows}


def _meshes(config: RunConfig, chips: int) -> Iterator[Changes]:
    """Meshes that divide more: copies given up, then `tensor` and `sequence` doubled at the cost of `fsdp`."""
    replica, fsdp, tensor, sequence = config.mesh.sizes(chips)
    if replica > 1:
        fsdp, replica = fsdp * replica, 1
        yield _mesh(replica, fsdp, tensor, sequence)
    for factor in (2, 4, 8):
        if fsdp % factor == 0:
            yield _mesh(replica, fsdp // factor, tensor * factor, sequence)
            yield _mesh(replica, fsdp // factor, tensor, sequence * factor)


def _mesh(*sizes: int) -> Changes:
    return {f"mesh.{axis}": size for axis, size in zip(sharding.MESH_AXES, sizes, strict=True)}


def attempt(config: RunConfig, changes: Changes, devices: list[Any], topology: Topology, means: Means) -> Attempt:
    """Compile the train step of a changed config, unless its state alone is too large.

    Args:
      config: of the run.
      changes: dotted fields that are changed.
      devices: of the topology.
      topology: to compile for.
      means: lengths and number of examples, where no token caches are there.

    Raises:
      UserError: the mesh does not fit the topology, the batch or the network.
    """
    changed = override(config, changes)
    mesh = sharding.make_mesh(changed.mesh, devices)
    load = workload.measure(changed, sharding.batch_parts(mesh), means)
    job = programs.train_job(changed, mesh, load.steps or 1, load.target_capacity)
    state = Memory(programs.state_memory(job), topology.hbm)
    program = None
    if _least(state, changed) <= state.capacity:
        _say(f"compiling the train step for {topology.name}, {describe(changes) or 'as configured'}")
        program = programs.compile_train(job, load.rows, topology)
    result = Attempt(changes, changed, mesh, load, program, program.memory if program else state)
    _say(
        f"  {result.memory.total / GIB:.2f} of {state.capacity / GIB:.2f} GiB a chip"
        + ("" if program else " for the state alone")
    )
    return result


def _least(state: Memory, config: RunConfig) -> float:
    """Return what a train step takes at least: its state, and gradients where they are summed over microbatches."""
    return state.total + (state.kinds["parameters"] if config.train.microbatches > 1 else 0)


def override(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Return the config with dotted fields changed."""
    values = config.model_dump()
    for name, value in changes.items():
        section, field = name.split(".")
        values[section][field] = value
    return validate(values)


def describe(changes: Changes) -> str:
    """Changes as the flags that make them."""
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def chips_needed(attempts: list[Attempt]) -> int | None:
    """Chips of this kind over which the state alone would be divided small enough, where it is too large for these."""
    smallest = min(attempts, key=lambda item: item.memory.total)
    if smallest.program is not None:
        return None
    return math.ceil(smallest.mesh.devices.size * smallest.memory.total / smallest.memory.capacity)
