"""Grids of a sweep's points, for the function `sweep()` of `configs/sweeps/*.py`.

Each takes or yields overrides, dotted fields with their values, and they combine: a chain of products, say.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Overrides = dict[str, Any]


def product(fields: Mapping[str, Iterable[Any]]) -> Iterator[Overrides]:
    """Yield every combination of the fields' values; the last field changes fastest.

    Example: `product({"arm": ("coi1", "coi12"), "seed": (0, 1, 2)})` yields six points.
    """
    for values in itertools.product(*fields.values()):
        yield dict(zip(fields, values, strict=True))


def zipped(fields: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """Yield the fields' values side by side, as a learning rate for each model size.

    Raises:
      ValueError: the fields have different numbers of values.
    """
    for values in zip(*fields.values(), strict=True):
        yield dict(zip(fields, values, strict=True))


def chain(*grids: Iterable[Overrides]) -> Iterator[Overrides]:
    """Yield the points of several grids, one after another."""
    yield from itertools.chain(*grids)


def crossed(one: Iterable[Overrides], other: Iterable[Overrides]) -> Iterator[Overrides]:
    """Yield every point of one grid with every point of another, whose values win."""
    points = list(other)
    for first in one:
        for second in points:
            yield first | second


def simplex(field: str, keys: Sequence[Any], parts: int, *, least: int = 1) -> Iterator[Overrides]:
    """Yield every way to share out equal parts among keys, as ratios of chain lengths.

    Args:
      field: that holds the shares, as "data.ratios".
      keys: as the chain lengths 1, 2 and 3.
      parts: how many there are.
      least: parts that each key has; 0 includes the corners and edges.

    Example: `simplex("data.ratios", (1, 2), 3)` yields `{1: 1, 2: 2}` and `{1: 2, 2: 1}`.
    """
    for shares in itertools.product(range(least, parts + 1), repeat=len(keys)):
        if sum(shares) == parts:
            yield {field: {key: share for key, share in zip(keys, shares, strict=True) if share}}
