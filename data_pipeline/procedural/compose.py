"""Sequences of operations that fit by type, and values that run through them without a degenerate step."""

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from data_pipeline.procedural.operation import Operation
from data_pipeline.procedural.splits import is_held_out, stays_taught

Combination = tuple[Operation, ...]

TRIALS = 40
"""Values tried before two operations are taken not to go together."""

SEARCHED = 50_000
"""Combinations and their beginnings that are looked at before a length is taken to have none: some seconds. The runs
that may be held out grow with the square of the length, so of very long combinations hardly any is taught."""

SLACK = 3
"""Uses by which an operation may run ahead of another; with none, the same few combinations would come round again."""


@dataclass(frozen=True)
class Limits:
    """Sizes of values.

    Attributes:
      min_items, max_items: of an input (words, numbers, sentences, fields …).
      max_characters: of any value's text.
    """

    min_items: int
    max_items: int
    max_characters: int


@dataclass(frozen=True)
class Call:
    """An operation with its arguments and the text that it gave."""

    operation: Operation
    arguments: dict[str, Any]
    output: str


@dataclass(frozen=True)
class Run:
    """An input that went through a combination.

    `degenerate`: some step gave back a text that the chain had before, as the identity or an undone step does, or the
    answer "3" about the list "3".
    """

    input: str
    calls: tuple[Call, ...]
    degenerate: bool


def run(combination: Combination, random: Random, limits: Limits, accepts: Callable[[str], bool]) -> Run | None:
    """Draw an input and run it through the operations.

    None where `accepts` refuses the input's text, or an operation makes no sense for its value.

    Args:
      combination: the operations.
      random: draws the input and the arguments.
      limits: sizes of values.
      accepts: whether the text of an input may be used.
    """
    source = combination[0].source
    value = source.draw(random, random.randint(limits.min_items, limits.max_items))
    text = source.text(value)
    if len(text) > limits.max_characters or not accepts(text):
        return None
    return _run(combination, value, text, random, limits)


def _run(combination: Combination, value: Any, text: str, random: Random, limits: Limits) -> Run | None:
    seen, calls, degenerate = {text}, [], False
    for operation in combination:
        arguments = operation.draw_arguments(random, value)
        if arguments is None:
            return None
        value = operation.apply(value, arguments)
        if value is None:
            return None
        output = operation.result.text(value)
        if len(output) > limits.max_characters:
            return None
        degenerate |= output in seen
        seen.add(output)
        calls.append(Call(operation, arguments, output))
    return Run(text, tuple(calls), degenerate)


class Composer:
    """Draws combinations of the chosen operations, each operation about equally often at every position."""

    def __init__(self, operations: Sequence[Operation], one_in: int, limits: Limits, degenerate: bool) -> None:
        """Prepare the pairs; `degenerate` allows those whose second operation only undoes or repeats the first."""
        self._operations, self._one_in, self._limits = tuple(operations), one_in, limits
        self._followers = {first: self._following(first, degenerate) for first in operations}
        self._extensible = [set(operations)]
        self._searched = 0

    def _following(self, first: Operation, degenerate: bool) -> tuple[Operation, ...]:
        fitting = (second for second in self._operations if second.source is first.result)
        return tuple(second for second in fitting if self._go_together(first, second, degenerate))

    def _go_together(self, first: Operation, second: Operation, degenerate: bool) -> bool:
        random = Random(f"{first.name} {second.name}")
        runs = (run((first, second), random, self._limits, lambda text: True) for _ in range(TRIALS))
        return any(found is not None and (degenerate or not found.degenerate) for found in runs)

    def draw(self, length: int, held_out: bool, usage: "Usage", random: Random) -> Combination | None:
        """Return a combination, held out or taught, of the least used operations; None where none is found.

        Args:
          length: number of operations.
          held_out: whether the combination is one that training never uses.
          usage: counts of earlier uses.
          random: breaks ties.
        """
        self._searched = 0
        return self._extend((), length, held_out, usage, random)

    def _extend(
        self, prefix: Combination, length: int, held_out: bool, usage: "Usage", random: Random
    ) -> Combination | None:
        if len(prefix) == length:
            return prefix
        for operation in usage.order(self._choices(prefix, length), len(prefix), random):
            self._searched += 1
            if self._searched > SEARCHED:
                return None
            extended = (*prefix, operation)
            if extended not in usage.fruitless and self._is_possible(extended, length, held_out):
                found = self._extend(extended, length, held_out, usage, random)
                if found:
                    return found
        return None

    def _choices(self, prefix: Combination, length: int) -> list[Operation]:
        """Return the operations that may come next and have others to follow them up to `length`."""
        following = self._followers[prefix[-1]] if prefix else self._operations
        extensible = self._extensible_by(length - len(prefix) - 1)
        return [operation for operation in following if operation in extensible]

    def _extensible_by(self, count: int) -> set[Operation]:
        """Return the operations that `count` others can follow."""
        while len(self._extensible) <= count:
            last = self._extensible[-1]
            self._extensible.append({op for op in self._operations if last.intersection(self._followers[op])})
        return self._extensible[count]

    def _is_possible(self, prefix: Combination, length: int, held_out: bool) -> bool:
        """Return whether a combination can become the wanted kind, taught or else held out, as its beginning could."""
        names = [operation.name for operation in prefix]
        if not held_out:
            return stays_taught(names, self._one_in)
        return len(prefix) < length or length == 1 or is_held_out(names, self._one_in)


class Usage:
    """Counts of each operation at each position, and the combinations that came to nothing."""

    def __init__(self) -> None:
        self.fruitless: set[Combination] = set()
        self._counts: dict[tuple[int, str], float] = collections.defaultdict(float)

    def order(self, operations: Sequence[Operation], position: int, random: Random) -> list[Operation]:
        """Return the operations, the less used at this position first, about equally used ones in random order.

        Args:
          operations: to order.
          position: in the combination.
          random: breaks ties.
        """
        use = {op: self._counts[position, op.name] + SLACK * random.random() for op in operations}
        return sorted(operations, key=lambda operation: use[operation])

    def succeed(self, combination: Combination) -> None:
        """Count one use of each operation at its position."""
        self._count(combination, 1)

    def fail(self, combination: Combination) -> None:
        """Bar a combination, and count it a little, so that operations which often fail do not come up for ever."""
        self.fruitless.add(combination)
        self._count(combination, 0.1)

    def _count(self, combination: Combination, weight: float) -> None:
        for position, operation in enumerate(combination):
            self._counts[position, operation.name] += weight
