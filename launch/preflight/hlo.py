"""The text of an optimized HLO module as computations and instructions, with how often each of them runs.

XLA's own cost analysis counts the body of a loop once; here every computation that runs has its number of runs in one
step, the turns of all loops around it multiplied.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

# Bytes of an element, by the names that HLO gives them; what is missing (token, opaque) has none.
WIDTHS = {
    "pred": 1,
    "s4": 0.5,
    "u4": 0.5,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "s32": 4,
    "u32": 4,
    "s64": 8,
    "u64": 8,
    "bf16": 2,
    "f16": 2,
    "f32": 4,
    "f64": 8,
    "c64": 8,
    "f8e4m3fn": 1,
    "f8e5m2": 1,
}

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = ")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^{}]*)\})?")
_REFERENCE = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|body|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%[\w.\-]+)")
_LOOP = re.compile(r"condition=%([\w.\-]+), body=%([\w.\-]+)")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True)
class Shape:
    """An array: its type, its dimensions and where it lies."""

    dtype: str
    dimensions: tuple[int, ...]
    space: int  # 0: the chip's large memory; others are small ones next to the cores

    @property
    def elements(self) -> int:
        """The product of its dimensions."""
        return math.prod(self.dimensions)

    @property
    def bytes(self) -> float:
        """Its size, without a layout's padding."""
        return self.elements * WIDTHS.get(self.dtype, 0)


@dataclass(frozen=True)
class Instruction:
    """One line: `%name = shapes opcode(operands), attributes`."""

    name: str
    shapes: tuple[Shape, ...]  # of an array one, of a tuple those of all arrays in it
    opcode: str
    arguments: str  # between the parentheses
    attributes: str
    is_root: bool

    @cached_property
    def operands(self) -> list[str]:
        """The names of the instructions whose values it takes."""
        return _REFERENCE.findall(self.arguments)

    @cached_property
    def called(self) -> list[str]:
        """The computations that it runs, but for a loop's condition and for those that combine two numbers."""
        return [name for group in _CALLED.findall(self.attributes) for name in _REFERENCE.findall(group)]

    @property
    def bytes(self) -> float:
        """The size of all its arrays."""
        return sum(shape.bytes for shape in self.shapes)

    def number(self, attribute: str) -> int | None:
        """Return an attribute that is a whole number."""
        found = re.search(rf"\b{attribute}=(\d+)", self.attributes)
        return int(found[1]) if found else None


@dataclass
class Computation:
    """Instructions in the order that they run in."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @cached_property
    def root(self) -> Instruction:
        """The instruction whose value is the computation's."""
        return next(line for line in self.instructions.values() if line.is_root)

    @cached_property
    def parameters(self) -> list[Instruction]:
        """Its parameters, by number."""
        lines = [line for line in self.instructions.values() if line.opcode == "parameter"]
        return sorted(lines, key=lambda line: int(line.arguments))

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Return the instructions that take an instruction's value."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for line in self.instructions.values():
            for operand in set(line.operands):
                users[operand].append(line)
        return users


@dataclass(frozen=True)
class Module:
    """All computations of a program, and the name of the one that runs first."""

    computations: dict[str, Computation]
    entry: str

    def runs(self, start: str | None = None) -> dict[str, float]:
        """Return how often each computation runs when `start` (the entry) runs once, inside fusions too.

        A loop whose turns depend on data counts once; the branches of a conditional are taken to run equally often.
        """
        runs: dict[str, float] = defaultdict(float)
        self._count(start or self.entry, 1.0, runs)
        return runs

    def _count(self, name: str, times: float, runs: dict[str, float]) -> None:
        runs[name] += times
        for line in self.computations[name].instructions.values():
            often = self.often(name, line)
            for called in line.called:
                self._count(called, times * often, runs)

    def often(self, name: str, line: Instruction) -> float:
        """Return how often an instruction of computation `name` runs each computation that it calls."""
        if line.opcode == "while":
            return self.trips(name, line) or 1
        return 1 / len(line.called) if line.opcode == "conditional" else 1

    def loops(self, name: str) -> Iterator[tuple[Instruction, int | None]]:
        """Yield the loops of a computation with their numbers of turns, None where that depends on data."""
        for line in self.computations[name].instructions.values():
            if line.opcode == "while":
                yield line, self.trips(name, line)

    def trips(self, name: str, loop: Instruction) -> int | None:
        """Return the turns of a loop that counts up to a constant (`lax.scan`, `lax.fori_loop`); None for another."""
        known = _KNOWN_TRIPS.search(loop.attributes)
        if known:
            return int(known[1])
        found = _LOOP.search(loop.attributes)
        assert found is not None
        condition, body = self.computations[found[1]], self.computations[found[2]]
        place = _compared(condition)
        if place is None:
            return None
        start = self._initial(name, loop, place)
        end = self._bound(condition, name, loop)
        step = _increment(body, place)
        return None if None in (start, end, step) else -(-(end - start) // step)  # type: ignore[operator]

    def _initial(self, name: str, loop: Instruction, place: int) -> int | None:
        """Return the constant that an element of a loop's state begins with."""
        lines = self.computations[name].instructions
        state = lines[loop.operands[0]]
        return _constant(lines, state.operands[place]) if state.opcode == "tuple" else None

    def _bound(self, condition: Computation, name: str, loop: Instruction) -> int | None:
        limit = condition.instructions[condition.root.operands[1]]
        if limit.opcode == "get-tuple-element":
            return self._initial(name, loop, limit.number("index") or 0)
        return _constant(condition.instructions, limit.name)


def _compared(condition: Computation) -> int | None:
    """Return which element of a loop's state must stay below something."""
    root = condition.root
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    counter = condition.instructions[root.operands[0]]
    return counter.number("index") if counter.opcode == "get-tuple-element" else None


def _increment(body: Computation, place: int) -> int | None:
    """Return what one turn adds to an element of a loop's state."""
    lines = body.instructions
    if body.root.opcode != "tuple":
        return None
    added = _behind_copies(lines, body.root.operands[place])
    if added.opcode != "add":
        return None
    constants = [_constant(lines, operand) for operand in added.operands]
    return next((value for value in constants if value), None)


def _constant(lines: dict[str, Instruction], name: str) -> int | None:
    line = _behind_copies(lines, name)
    return int(line.arguments) if line.opcode == "constant" and re.fullmatch(r"-?\d+", line.arguments) else None


def _behind_copies(lines: dict[str, Instruction], name: str) -> Instruction:
    while lines[name].opcode in ("copy", "bitcast", "copy-done", "copy-start"):
        name = lines[name].operands[0]
    return lines[name]


def parse(text: str) -> Module:
    """Return the module of `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in _whole_lines(text):
        if current is None:
            header = _HEADER.match(line)
            if header:
                current = computations[header[2]] = Computation(header[2])
                entry = header[2] if header[1] else entry
        elif line == "}":
            current = None
        else:
            instruction = _instruction(line)
            if instruction:
                current.instructions[instruction.name] = instruction
    return Module(computations, entry)


def _whole_lines(text: str) -> Iterator[str]:
    """Lines, with those that attributes have broken put together: all inside a computation are indented."""
    whole: list[str] = []
    for line in text.splitlines():
        if line.startswith("  ") or line == "}" or _HEADER.match(line):
            yield "".join(whole)
            whole = []
        whole.append(line)
    yield "".join(whole)


def _instruction(line: str) -> Instruction | None:
    name = _NAME.match(line)
    if not name:
        return None
    rest = line[name.end() :]
    shapes, rest = _split(rest) if rest.startswith("(") else rest.split(" ", 1)
    opcode, _, rest = rest.lstrip().partition("(")
    arguments, attributes = _split("(" + rest)
    return Instruction(name[2], _shapes(shapes), opcode, arguments[1:-1], attributes, bool(name[1]))


def _split(text: str) -> tuple[str, str]:
    """Return a text that begins with a parenthesis, divided after the one that closes it."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :]
    return text, ""


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(
        Shape(dtype, tuple(map(int, filter(None, dimensions.split(",")))), _space(layout))
        for dtype, dimensions, layout in _ARRAY.findall(text)
    )


def _space(layout: str) -> int:
    found = re.search(r"S\((\d+)\)", layout)
    return int(found[1]) if found else 0
