"""The costs of one step on one chip, read from its optimized HLO: operations, memory traffic, collectives."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from launch.preflight.hlo import Computation, Instruction, Module, Shape

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BETWEEN_SLICES = "sum between slices"  # spelt as sends and receipts of the host, each chip's with its like elsewhere
MEGASCALE = "_xla_megascale_transfer_type"
_IOTA = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"  # numbers in order, laid out and perhaps turned

# What moves no bytes, or has them counted where they are used.
FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "iota",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
)
SLICES = ("dynamic-slice", "slice", "gather")
KERNEL = "tpu_custom_call"  # written by hand (Pallas); other custom calls only name or place memory
# Matrix products that the splash attention kernels make of a pair of blocks: scores and mixture; scores again and the
# gradients of weights and queries; scores again and the gradients of weights, keys and values.
SPLASH = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


@dataclass(frozen=True)
class Collective:
    """One kind of exchange between chips, all its runs of a step.

    Attributes:
      kind: of COLLECTIVES, or BETWEEN_SLICES.
      group: chips that exchange with one another; the first group of the program. Of sums between slices it is empty.
      count: times a step.
      bytes: of the whole value at each chip, all times together: gathered, summed or sent on.
    """

    kind: str
    group: tuple[int, ...]
    count: float
    bytes: float

    @property
    def wire_bytes(self) -> float:
        """Bytes that each chip receives, on a ring (Chan et al. 2007, section 4)."""
        chips = max(len(self.group), 1)
        share = {"all-reduce": 2 * (chips - 1) / chips, "collective-permute": 1.0, BETWEEN_SLICES: 1.0}
        return self.bytes * share.get(self.kind, (chips - 1) / chips)


@dataclass(frozen=True)
class Costs:
    """The costs of one run of a program on one chip.

    Attributes:
      flops: operations of matrix products.
      memory_bytes: read from and written to its large memory.
      collectives: by kind and group.
      kernels: runs of other Pallas kernels than splash attention; their operations are not in `flops`.
    """

    flops: float
    memory_bytes: float
    collectives: tuple[Collective, ...]
    kernels: float


def count(module: Module, start: str | None = None) -> Costs:
    """Return the costs of one run of computation `start` (the whole program)."""
    runs = module.runs(start)
    fused = _fused(module)
    flops = memory = kernels = 0.0
    for name, times in runs.items():
        computation = module.computations[name]
        flops += times * sum(_flops(computation, line) for line in computation.instructions.values())
        if name in fused:
            continue
        memory += times * sum(_traffic(module, computation, line) for line in computation.instructions.values())
        kernels += times * sum(_is_silent(line) for line in computation.instructions.values())
    return Costs(flops, memory, tuple(_collectives(module, runs, fused)), kernels)


def _fused(module: Module) -> set[str]:
    """Computations inside fusions: only the fusion's own operands and results touch memory."""
    names = {
        called
        for computation in module.computations.values()
        for line in computation.instructions.values()
        if line.opcode == "fusion"
        for called in line.called
    }
    return names


# Operations


def _flops(computation: Computation, line: Instruction) -> float:
    if line.opcode == "convolution":
        return 2 * _multiplications(line, *(computation.instructions[name].shapes[0] for name in line.operands))
    if line.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.attributes)
        dimensions = computation.instructions[line.operands[0]].shapes[0].dimensions
        summed = math.prod(dimensions[int(axis)] for axis in contracted[1].split(",") if axis) if contracted else 1
        return 2.0 * line.shapes[0].elements * summed
    return _kernel_flops(computation, line)


def _multiplications(line: Instruction, left: Shape, right: Shape) -> float:
    """Products of a convolution, which is how a TPU spells every matrix product.

    Dimensions that only lead along (a batch) are spelt as a window over padded or dilated positions; products with
    padding are none.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.attributes)
    assert labels is not None
    inputs, kernel, outputs = labels[1], labels[2], labels[3]
    window = _window(line.attributes)
    rows = line.shapes[0].dimensions[outputs.index("b")]
    features = line.shapes[0].dimensions[outputs.index("f")]
    total = float(rows * features * right.dimensions[kernel.index("i")])
    for axis in sorted(label for label in outputs if label.isdigit()):
        given = left.dimensions[inputs.index(axis)]
        made = line.shapes[0].dimensions[outputs.index(axis)]
        total *= _valid(given, made, right.dimensions[kernel.index(axis)], {k: v[int(axis)] for k, v in window.items()})
    return total


def _window(attributes: str) -> dict[str, list[str]]:
    """`window={size=8x1 stride=7x1}` as `{"size": ["8", "1"], "stride": ["7", "1"]}`."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    entries = (entry.partition("=") for entry in found[1].split()) if found else ()
    return {name: values.split("x") for name, _, values in entries}


def _valid(given: int, made: int, size: int, window: dict[str, str]) -> int:
    """Pairs of an output and a kernel position in one dimension that meet an input, not padding nor a gap."""
    low = int(window["pad"].split("_")[0]) if "pad" in window else 0
    stride, dilated = int(window.get("stride", 1)), int(window.get("lhs_dilate", 1))
    apart = int(window.get("rhs_dilate", 1))
    positions = np.arange(made)[:, None] * stride + np.arange(size)[None] * apart - low
    return int(((positions >= 0) & (positions <= (given - 1) * dilated) & (positions % dilated == 0)).sum())


def _kernel_flops(computation: Computation, line: Instruction) -> float:
    """Return the operations of a splash attention kernel; its causal mask leaves half of all pairs."""
    products = next((number for name, number in SPLASH.items() if name in line.name), 0)
    if not _is_kernel(line) or not products:
        return 0.0
    shapes = (computation.instructions[name].shapes[0] for name in line.operands)
    query, keys, *_ = (shape for shape in shapes if shape.dtype in ("bf16", "f32"))
    return products * 2.0 * query.elements * keys.dimensions[-2] / 2


def _is_kernel(line: Instruction) -> bool:
    return line.opcode == "custom-call" and f'"{KERNEL}"' in line.attributes


def _is_silent(line: Instruction) -> bool:
    return _is_kernel(line) and not any(name in line.name for name in SPLASH)


# Memory


def _traffic(module: Module, computation: Computation, line: Instruction) -> float:
    """Return bytes that an instruction outside fusions reads from and writes to the large memory."""
    if line.opcode in FREE or line.opcode.endswith("-done") or _is_bookkeeping(line):
        return 0.0
    operands = [computation.instructions[name].shapes for name in line.operands]
    if line.opcode == "fusion":
        return _fusion_traffic(module.computations[line.called[0]], module, line, operands)
    if line.opcode in ("copy-start", "slice-start"):
        moved = line.shapes[0 if line.opcode == "copy-start" else 1]
        return moved.bytes * ((moved.space == 0) + (operands[0][0].space == 0))
    written = _large(line.shapes)
    if line.opcode in SLICES:
        return written + (line.bytes if operands[0][0].space == 0 else 0.0)
    if line.opcode == "dynamic-update-slice":
        return 2 * _large(operands[1])
    return written + sum(map(_large, operands))


def _is_bookkeeping(line: Instruction) -> bool:
    return line.opcode == "custom-call" and not _is_kernel(line)


def _large(shapes: Sequence[Shape]) -> float:
    return sum(shape.bytes for shape in shapes if shape.space == 0)


def _fusion_traffic(
    inner: Computation, module: Module, line: Instruction, operands: Sequence[tuple[Shape, ...]]
) -> float:
    read = sum(
        min(_used(inner, parameter.name, module), shapes[0].bytes)
        for parameter, shapes in zip(inner.parameters, operands, strict=True)
        if shapes[0].space == 0
    )
    made = inner.root.operands if inner.root.opcode == "tuple" else [inner.root.name]
    written = sum(
        min(_changed(inner, name, module), shape.bytes)
        for name, shape in zip(made, line.shapes, strict=False)
        if shape.space == 0
    )
    return read + written


def _used(inner: Computation, name: str, module: Module) -> float:
    """Return bytes of a value that a fused computation looks at: slices look at a part, in-place updates at none."""
    total = 0.0
    for user in inner.users[name]:
        if user.opcode in SLICES:
            total += user.bytes
        elif user.opcode == "bitcast":
            total += _used(inner, user.name, module)
        elif user.opcode == "fusion":
            nested = module.computations[user.called[0]]
            total += sum(
                _used(nested, parameter.name, module)
                for parameter, operand in zip(nested.parameters, user.operands, strict=True)
                if operand == name
            )
        elif not _passes_on(user, name):
            return inner.instructions[name].bytes
    return total


def _passes_on(user: Instruction, name: str) -> bool:
    """Return whether an instruction leaves a value where it is: collectives are counted for themselves."""
    if user.opcode == "dynamic-update-slice":
        return user.operands[0] == name and name not in user.operands[1:]
    return user.opcode in ("tuple", "custom-call", "get-tuple-element") or _kind(user) is not None


def _changed(inner: Computation, name: str, module: Module) -> float:
    """Return bytes of a result that a fused computation writes: of an update in place only those of the update."""
    line = inner.instructions[name]
    if line.opcode == "bitcast":
        return _changed(inner, line.operands[0], module)
    if line.opcode == "dynamic-update-slice":
        return inner.instructions[line.operands[1]].bytes
    if line.opcode == "fusion":
        nested = module.computations[line.called[0]]
        return _changed(nested, nested.root.name, module) if nested.root.opcode != "tuple" else line.bytes
    return 0.0 if line.opcode in ("parameter", "custom-call") or _kind(line) else line.bytes


# Collectives


def _kind(line: Instruction) -> str | None:
    """Return the kind of a collective; the second half of an asynchronous one is none."""
    name = line.opcode.removesuffix("-start")
    if name == "send" and MEGASCALE in line.attributes:
        return BETWEEN_SLICES
    return name if name in COLLECTIVES else None


def _collectives(module: Module, runs: dict[str, float], fused: set[str]) -> Iterator[Collective]:
    """Yield all collectives of a program, those of one kind and group together.

    One that runs beside computation is spread over a chain of fusions, in each of which it stands: it counts once in
    the computation that runs these fusions.
    """
    totals: dict[tuple[str, tuple[int, ...]], list[float]] = {}
    for name, times in runs.items():
        if name in fused:
            continue
        for line in {_identity(line): line for line in _inside(module, name)}.values():
            total = totals.setdefault((str(_kind(line)), group(line)), [0.0, 0.0])
            total[0] += times
            total[1] += times * _payload(line)
    for (kind, members), (number, size) in sorted(totals.items()):
        yield Collective(kind, members, number, size)


def _identity(line: Instruction) -> str:
    """Return the same for all parts of one collective."""
    chain = re.search(r'chain_id="(\d+)"', line.attributes)
    return f"chain {chain[1]}" if chain else line.name


def _inside(module: Module, name: str) -> Iterator[Instruction]:
    """Yield the collectives of a computation and of its fusions."""
    for line in module.computations[name].instructions.values():
        if _kind(line):
            yield line
        if line.opcode == "fusion":
            for called in line.called:
                yield from _inside(module, called)


def _payload(line: Instruction) -> float:
    """Return bytes of the whole value: what is gathered, summed, scattered from or sent."""
    kind, members = _kind(line), len(group(line))
    if line.opcode == "all-gather-start":
        return line.bytes * members / (members + 1)  # its operand stands beside its result
    if line.opcode in ("collective-permute-start", "send"):
        return line.shapes[0].bytes
    return line.bytes * (members if kind == "reduce-scatter" else 1)


def group(line: Instruction) -> tuple[int, ...]:
    """Return the chips of a collective's first group, by their number in the mesh."""
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", line.attributes)
    if pairs:
        return int(pairs[1]), int(pairs[2])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line.attributes)
    if listed:
        return tuple(map(int, listed[1].split(",")))
    order = rf"(?:, device_ids=\({_IOTA}\))?"
    axes = re.search(rf"replica_groups=mesh\[([^\]]*)\]{order} \{{([^}}]*)\}}", line.attributes)
    if axes:
        return _along_axes(*axes.groups())
    iota = re.search(rf"replica_groups=\[([\d,]+)\]<={_IOTA}", line.attributes)
    if iota:
        return tuple(_iota(iota[2], iota[3]).reshape(_integers(iota[1]))[0].tolist())
    if "replica_groups" in line.attributes:
        raise ValueError(f"replica groups in a spelling that is not known: {line.attributes[:200]}")
    return ()


def _along_axes(sizes: str, extents: str | None, order: str | None, chosen: str) -> tuple[int, ...]:
    """Return the chips along some axes of a mesh, numbered in order unless `extents` and `order` differ.

    Example: sizes `'axis_0'=2,'axis_1'=4` along `'axis_1'` give `(0, 1, 2, 3)`; with extents `4,2` and order `1,0`
    `(0, 2, 4, 6)`.
    """
    mesh = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", sizes)}
    along = re.findall(r"'(\w+)'", chosen)
    chips = _iota(extents or str(math.prod(mesh.values())), order).reshape(tuple(mesh.values()))
    return tuple(chips[tuple(slice(None) if axis in along else 0 for axis in mesh)].ravel().tolist())


def _iota(extents: str, order: str | None) -> np.ndarray:
    """Example: `2,4` turned by `1,0` gives `[[0, 4], [1, 5], [2, 6], [3, 7]]`."""
    chips = np.arange(math.prod(_integers(extents))).reshape(_integers(extents))
    return chips.transpose(_integers(order)) if order else chips


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
