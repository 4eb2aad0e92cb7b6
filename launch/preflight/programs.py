"""The real programs of a run, compiled for devices that are not there: the train step, prefill and decode.

No array is made: states, parameters and batches are shapes with shardings.
"""

import functools
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coi_jax.config.run import AllStepsConfig, RunConfig, TrainedVocabularyConfig
from coi_jax.data import batches
from coi_jax.data.row_shape import RowShape
from coi_jax.data.step_weights import Weights
from coi_jax.inference import engine, generator, rows
from coi_jax.inference.decoding import Strategy
from coi_jax.models import build
from coi_jax.models.decoder import chunk_length
from coi_jax.parallel import sharding
from coi_jax.runs.run_folder import RunFolder
from coi_jax.tokenizers.vocabulary import ByteVocabulary, load_vocabulary
from coi_jax.training import step as train_step
from coi_jax.training.loop import TrainingJob, make_job
from launch.preflight import hlo, hlo_costs
from launch.preflight.hlo_costs import Costs
from launch.preflight.topologies import GIB, Topology

EOS_ID = 2  # any: the programs differ in one constant
UNITS = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Bytes of one chip's memory by what they are for.

    `temporaries` are gradients, activations and all else that lives within one run of the program; `padding` is what
    the tiled layouts of the arguments take beyond their elements.
    """

    kinds: dict[str, int]
    capacity: int

    @property
    def total(self) -> int:
        """All kinds together."""
        return sum(self.kinds.values())

    @property
    def fits(self) -> bool:
        """Return whether the program can run."""
        return self.total <= self.capacity


@dataclass(frozen=True)
class Program:
    """A compiled program; `costs` is None where it was too large to be compiled to its end."""

    name: str
    memory: Memory
    costs: Costs | None
    seconds: float  # that compiling took
    cpu_seconds: float


@dataclass
class Steps:
    """A stand-in for the loader: a run of some steps without batches."""

    total_steps: int
    fingerprint: str = ""

    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Any:
        """There is nothing to go over."""
        raise ValueError("a preflight has no batches")

    def example_ids(self, step: int) -> list[str]:
        """See `coi_jax.training.loop.Batches`; there are none."""
        return []


def vocabulary_size(config: RunConfig) -> int:
    """Return rows of the embedding; raises UserError where only a vocabulary that cannot be had says how many."""
    if config.model.vocabulary_size:
        return config.model.vocabulary_size
    if isinstance(config.vocabulary, TrainedVocabularyConfig):
        return config.vocabulary.size
    return load_vocabulary(config).size


def train_job(config: RunConfig, mesh: Mesh, total_steps: int, target_capacity: int | None = None) -> TrainingJob:
    """Return what training prepares, for a mesh; raises UserError where the mesh does not fit the config.

    Args:
      config: of the run.
      mesh: to train on.
      total_steps: of the run.
      target_capacity: the most targets of one device in a microbatch; None: any number.
    """
    network = build(config.model, vocabulary_size(config), config.lora)
    return make_job(config, RunFolder("none"), mesh, Steps(total_steps), network, target_capacity)


def state_memory(job: TrainingJob) -> dict[str, int]:
    """Return bytes of each chip that a training state takes, by its parts."""
    state = train_step.abstract_state(job.network, job.optimizer)
    sizes = {part: _bytes(getattr(state, part), getattr(job.shardings, part)) for part in state._fields}
    names = {"params": "parameters", "frozen": "frozen parameters", "opt_state": "optimizer"}
    return {name: sizes[part] for part, name in names.items() if sizes[part]}


def compile_train(job: TrainingJob, rows: int, topology: Topology) -> Program:
    """Return the train step on batches of so many rows.

    Args:
      job: of `train_job`.
      rows: of a batch.
      topology: to compile for.
    """
    state = train_step.abstract_state(job.network, job.optimizer)
    batch = abstract_batch(job.config, rows)
    known = state_memory(job) | {
        "batch": _bytes(batch, jax.tree.map(lambda _: sharding.batch_sharding(job.mesh), batch))
    }
    with jax.set_mesh(job.mesh):
        program, _ = _compile("train", lambda: _lower(job.step, state, batch), known, topology)
    return program


def abstract_batch(config: RunConfig, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of a step's arrays."""
    shape = RowShape(config.data.length, config.data.targets_length or 0, begins=0)
    weights: list[list[Weights]] | None = None if isinstance(config.train.loss_on, AllStepsConfig) else []
    arrays = batches.fill([], shape, ByteVocabulary(), weights)
    return {name: jax.ShapeDtypeStruct((rows, array.shape[1]), array.dtype) for name, array in arrays.items()}


def compile_generation(config: RunConfig, mesh: Mesh, topology: Topology) -> list[Program]:
    """Prefill and decode with room for the longest prompts and answers. Of decode one token is counted.

    Args:
      config: of the run.
      mesh: to generate on.
      topology: to compile for.
    """
    network = build(config.model, vocabulary_size(config), config.lora)
    strategy = generator.make_strategy(network, EOS_ID, config.evaluation)
    shape = GenerationShape.of(config, mesh)
    with jax.set_mesh(mesh):
        params = _placed_params(strategy, mesh)
        known = {"parameters": _bytes(params, jax.tree.map(lambda leaf: leaf.sharding, params))}
        empty, compiled = _compile(
            "prefill", lambda: _lower(engine.empty_rows, strategy, *shape.sizes), known, topology
        )
        if compiled is None:
            return [empty]
        rows = jax.eval_shape(lambda: engine.empty_rows(strategy, *shape.sizes))
        state, kept = jax.tree.map(_placed, rows, compiled.output_shardings)
        known = known | {"cache": _bytes(rows, compiled.output_shardings)}
        read = jax.ShapeDtypeStruct((), jnp.int32)
        prompts = (params, state, kept, read, *shape.abstract_prompts(), shape.length)
        lowered = [(engine.insert, prompts), (engine.decode, (params, state, jax.ShapeDtypeStruct((), jnp.int32)))]
        return [
            _compile(name, functools.partial(_lower, function, strategy, *arguments), known, topology)[0]
            for name, (function, arguments) in zip(("prefill", "decode"), lowered, strict=True)
        ]


@dataclass(frozen=True)
class GenerationShape:
    """The sizes of generation.

    Attributes:
      rows: of the batch.
      prompts: that are read together.
      length: tokens of the longest prompts, padding included.
    """

    rows: int
    prompts: int
    length: int

    @classmethod
    def of(cls, config: RunConfig, mesh: Mesh) -> "GenerationShape":
        """Return the sizes for a full batch of the longest prompts."""
        parts = sharding.data_parallel(mesh)
        length = rows.pad_length(config.data.length)
        return cls(generator.batch_rows(length, config.evaluation.batch, parts), parts, length)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Return the sizes as `engine.empty_rows` takes them."""
        return self.rows, self.length, self.prompts

    def chunk(self, config: RunConfig, mesh: Mesh) -> int:
        """Return the tokens of prompts that are read together: a decoder's chunk, all of an encoder's."""
        with jax.set_mesh(mesh):
            return chunk_length(self.length) if config.model.kind == "decoder" else self.length

    def abstract_prompts(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the shapes of ids, lengths, rows that are taken, and draws."""
        shapes = ((self.prompts, self.length), (self.prompts,), (self.prompts,))
        draws = jax.ShapeDtypeStruct((self.prompts, 2), jnp.uint32)
        return (*(jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes), draws)


def _placed_params(strategy: Strategy, mesh: Mesh) -> Any:
    """As the generator holds them."""
    network = strategy.network
    places = sharding.shardings(network.logical_axes(), network.abstract(), mesh)
    if not network.unrolls_decoding:
        return jax.tree.map(_placed, jax.eval_shape(network.cast_for_decoding, network.abstract()), places)
    given = jax.tree.map(_placed, network.abstract(), places)
    compiled = engine.prepare.lower(strategy, given).compile()
    return jax.tree.map(
        _placed, jax.eval_shape(lambda given: engine.prepare(strategy, given), given), compiled.output_shardings
    )


def _placed(leaf: Any, place: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def _lower(function: Any, *arguments: Any) -> jax.stages.Lowered:
    """`function` is jitted; its static arguments stand among the others."""
    lowered: jax.stages.Lowered = function.lower(*arguments)
    return lowered


def _bytes(tree: Any, shardings: Any) -> int:
    """Return bytes of each chip that some arrays take."""
    sizes = jax.tree.map(
        lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize, tree, shardings
    )
    return sum(jax.tree.leaves(sizes))


def _compile(
    name: str, lower: Callable[[], jax.stages.Lowered], known: dict[str, int], topology: Topology
) -> tuple[Program, jax.stages.Compiled | None]:
    """Compile a program of whose arguments `known` says what they are for; None where it needs too much memory."""
    began, cpu_began = time.perf_counter(), time.process_time()
    compiled, needed = None, 0
    try:
        compiled = lower().compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _memory_needed(str(error))
        if not needed:
            raise
    kinds = _kinds(compiled, known) if compiled else known | {"temporaries": max(needed - sum(known.values()), 0)}
    costs = _costs(str(compiled.as_text()), name) if compiled else None
    memory = Memory(kinds, topology.hbm)
    took = time.perf_counter() - began, time.process_time() - cpu_began
    return Program(name, memory, costs, *took), compiled


def _kinds(compiled: jax.stages.Compiled, known: dict[str, int]) -> dict[str, int]:
    """Return what a program takes, by the compiler's own account."""
    stats = compiled.memory_analysis()
    assert stats is not None
    return known | {
        "temporaries": stats.temp_size_in_bytes,
        "outputs": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
        "padding": max(stats.argument_size_in_bytes - sum(known.values()), 0),
    }


def _memory_needed(message: str) -> int:
    """Return the bytes that libtpu names when a program is larger than a chip's memory; 0 for any other complaint.

    Examples: `Used 18.90G of 15.75G hbm`, `memory required for HLO temporaries (480.00G) exceeds available HBM`.
    """
    found = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm|\(([\d.]+)([KMGT])\) exceeds available HBM", message)
    if not found:
        return 0
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(float(number) * UNITS[unit])


def _costs(text: str, name: str) -> Costs:
    """Return the costs of a program.

    Of decode they are those of one turn of its loop over tokens, and of a decoder's prefill those of one chunk of the
    prompts: of a loop whose turns data decide, one is counted.
    """
    module = hlo.parse(text)
    if name != "decode":
        return hlo_costs.count(module)
    turns = [line for line, trips in module.loops(module.entry) if trips is None]
    return hlo_costs.count(module, turns[0].called[0])
