"""How every array of a published model lies on a mesh, as text files under tests/goldens/sharding.

`python -m tests.helpers.sharding_goldens` writes them again, after a change that was meant; look at `git diff` then.
They follow from shapes and rules alone: no device is asked and nothing is computed. Parameters are named one by one;
activations are all that the code lays out by `sharding.constrain`, as training, prefill and a decode step meet them.
"""

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec

from coi_jax.common.errors import UserError
from coi_jax.config.model import LoraConfig, model_section
from coi_jax.families.registry import PRESETS
from coi_jax.models import Network, build
from coi_jax.parallel import sharding
from coi_jax.runs.train_state import TrainState
from coi_jax.training import step as train_step
from coi_jax.training.optimizer import make_optimizer, make_schedule
from tests.helpers import tiny_models
from tests.helpers.paths import GOLDENS

FOLDER = GOLDENS / "sharding"
RUN = {"dropout": 0.0, "dtype": "bfloat16", "attention": "xla", "loss_chunk": None, "remat": "full", "scan_unroll": 1}
LORA = LoraConfig(
    rank=16, alpha=16.0, targets="attention|mlp", dropout=0.0, rank_stabilized=False, base_dtype="bfloat16"
)
LENGTH, TARGETS_LENGTH, NEW_TOKENS = 2048, 512, 64

MESHES = {
    "fsdp16": {"fsdp": 16},
    "fsdp256": {"fsdp": 256},
    "fsdp64_tensor4": {"fsdp": 64, "tensor": 4},
    "tensor8": {"tensor": 8},
    "replica2_fsdp8_tensor2_sequence2": {"replica": 2, "fsdp": 8, "tensor": 2, "sequence": 2},
}
# Preset, mesh, and whether with adapters.
CASES = (
    ("mistral_7b_v01", "fsdp16", False),
    ("mistral_7b_v01", "fsdp16", True),
    ("mistral_7b_v01", "replica2_fsdp8_tensor2_sequence2", False),
    ("llama2_7b", "fsdp256", False),
    ("llama31_70b", "fsdp64_tensor4", False),
    ("qwen25_05b", "replica2_fsdp8_tensor2_sequence2", False),
    ("qwen25_05b", "fsdp256", False),  # its width is 896
    ("qwen25_15b", "fsdp64_tensor4", False),  # two key-value heads on four devices
    ("gemma3_1b", "fsdp64_tensor4", False),  # one
    ("gemma3_1b", "tensor8", False),  # more devices than heads
    ("alpaca_7b", "fsdp64_tensor4", False),  # 32,001 ids
    ("flan_t5_xxl", "fsdp256", False),
    ("flan_t5_xxl", "replica2_fsdp8_tensor2_sequence2", False),
    ("mt5_xl", "fsdp64_tensor4", False),
)

Row = tuple[str, ...]


def file_of(preset: str, mesh: str, adapters: bool) -> Path:
    """Where a case lies."""
    return FOLDER / f"{preset}{'.lora' if adapters else ''}.{mesh}.txt"


def describe(preset: str, mesh: str, adapters: bool) -> str:
    """The text of a case; where the mesh does not fit, what the user is told."""
    fields = PRESETS[preset] | RUN
    network = build(model_section(fields)(**fields), 1, LORA if adapters else None)
    abstract = sharding.abstract_mesh(**MESHES[mesh])
    sizes = " × ".join(f"{axis} {size}" for axis, size in abstract.shape.items())
    title = f"{preset}{f', adapters of rank {LORA.rank}' if adapters else ''} on {sizes}"
    try:
        parts = [_parameters(network, abstract), *_optimizers(network, abstract), *_activations(network, abstract)]
    except UserError as error:
        parts = [f"error: {error}"]
    return "\n\n".join([title, *parts]) + "\n"


def _parameters(network: Network, mesh: AbstractMesh) -> str:
    abstract, axes = network.abstract(), network.logical_axes()
    placed = sharding.shardings(axes, abstract, mesh)
    rows: list[Row] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract):
        names: Any = axes
        place: Any = placed
        for key in path:
            names, place = names[key.key], place[key.key]
        dtype = "" if leaf.dtype == jnp.float32 else str(leaf.dtype)
        rows.append((sharding.path_name(path), _shape(leaf.shape), _axes(names), _spec(place.spec, mesh), dtype))
    return _table(f"parameters: {_bytes(abstract, placed)} a device", rows)


def _optimizers(network: Network, mesh: AbstractMesh) -> Iterator[str]:
    """Both optimizers' states: how many leaves lie as their parameter does, and one by one those that do not."""
    for name, config in tiny_models.OPTIMIZERS.items():
        optimizer = make_optimizer(config, make_schedule(config, 10), network.split(network.logical_axes())[0])
        state = train_step.abstract_state(network, optimizer)
        placed = train_step.state_shardings(network, optimizer, mesh)
        yield _table(f"{name}: {_bytes(state.opt_state, placed.opt_state)} a device", list(_state_rows(state, placed)))


def _state_rows(state: TrainState, placed: TrainState) -> Iterator[Row]:
    params = zip(jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(placed.params), strict=True)
    known = {sharding.keys(path): (leaf.shape, place) for (path, leaf), place in params}
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    like = small = 0
    for (path, leaf), place in zip(leaves, jax.tree.leaves(placed.opt_state), strict=True):
        keys = sharding.keys(path)
        parameter = next((known[keys[start:]] for start in range(len(keys)) if keys[start:] in known), None)
        if parameter == (leaf.shape, place):
            like += 1
        elif math.prod(leaf.shape) == 1:
            small += 1
        else:
            yield ".".join(keys), _shape(leaf.shape), "", _spec(place.spec, place.mesh)
    yield f"{like} leaves as their parameter, {small} of one element", "", "", ""


def _activations(network: Network, mesh: AbstractMesh) -> Iterator[str]:
    rows = sharding.data_parallel(mesh)
    is_t5 = network.config.kind == "t5"
    params = network.abstract()
    decoder = dict.fromkeys(("tokens", "targets", "weights", "segments"), TARGETS_LENGTH if is_t5 else LENGTH)
    other = dict.fromkeys(("encoder_tokens", "encoder_segments") if is_t5 else ("positions",), LENGTH)
    batch = {name: jax.ShapeDtypeStruct((rows, length), jnp.int32) for name, length in (decoder | other).items()}
    prompts, lengths = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((rows, LENGTH), (rows,)))
    read = functools.partial(network.prefill, max_new_tokens=NEW_TOKENS)

    def prefill() -> Any:
        return jax.eval_shape(read, params, prompts, lengths)

    _, cache = prefill()
    yield _constrained(f"training, {rows} rows", mesh, lambda: jax.eval_shape(network.loss, params, batch))
    yield _constrained(f"prefill, {rows} prompts", mesh, prefill)
    yield _constrained(
        f"decode step, {rows} rows", mesh, lambda: jax.eval_shape(network.decode_step, params, cache, lengths)
    )


def _constrained(title: str, mesh: AbstractMesh, trace: Callable[[], Any]) -> str:
    """The kinds of activations that a trace lays out, in the order in which they are met."""
    met: dict[Row, None] = {}
    spec_of = sharding.activation_spec

    def note(shape: tuple[int, ...], axes: sharding.LogicalAxes) -> PartitionSpec:
        spec = spec_of(shape, axes)
        met[_shape(shape), _axes(axes), _spec(spec, mesh)] = None
        return spec

    with mock.patch.object(sharding, "activation_spec", note), jax.sharding.use_abstract_mesh(mesh):
        trace()
    return _table(title, list(met))


def _bytes(abstract: Any, placed: Any) -> str:
    """What a tree takes on each device."""
    sizes = jax.tree.map(
        lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize, abstract, placed
    )
    return f"{sum(jax.tree.leaves(sizes)):,} bytes"


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _axes(axes: sharding.LogicalAxes) -> str:
    return ", ".join(axis or "·" for axis in axes)


def _spec(spec: PartitionSpec, mesh: AbstractMesh) -> str:
    """The mesh axes that divide each dimension, as `tensor, ·, replica+fsdp`."""
    entries = [(entry,) if isinstance(entry, str) else entry or () for entry in spec]
    dividing = ["+".join(axis for axis in entry if mesh.shape[axis] > 1) for entry in entries]
    return ", ".join(names or "·" for names in dividing) if any(dividing) else "on every device"


def _table(title: str, rows: list[Row]) -> str:
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=False)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return "\n".join([title, *(f"  {line}" for line in lines)])


def main() -> None:
    """Writes every file, and removes those of no case."""
    jax.config.update("jax_platforms", "cpu")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in set(FOLDER.glob("*.txt")) - {file_of(*case) for case in CASES}:
        old.unlink()
    for case in CASES:
        file_of(*case).write_text(describe(*case), encoding="utf-8")


if __name__ == "__main__":
    main()
