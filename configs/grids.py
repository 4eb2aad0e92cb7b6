"""Grids of a sweep's points, for the function `sweep()` of `configs/sweeps/*.py`.

Each takes or yields overrides, dotted fields with their values, and they combine: a chain of products, say.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Overrides = dict[str, Any]


def product(fields: Mapping[str, Iterable[Any]]) -> Iterator[Overrides]:
    """Yield every combination of the fields' values; the last field changes fastest.

    Raises:
      ValueError: a field has one value instead of a sequence of them.

    Example: `product({"arm": ("coi1", "coi12"), "seed": (0, 1, 2)})` yields six points.
    """
    for values in itertools.product(*map(_values, fields, fields.values())):
        yield dict(zip(fields, values, strict=True))


def zipped(fields: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """Yield the fields' values side by side, as a learning rate for each model size.

    Raises:
      ValueError: the fields have different numbers of values, or one has no sequence of them.
    """
    columns = list(map(_values, fields, fields.values()))
    if len(set(map(len, columns))) > 1:
        counts = ", ".join(f"{name} {len(column)}" for name, column in zip(fields, columns, strict=True))
        raise ValueError(f"the fields have different numbers of values: {counts}")
    for values in zip(*columns, strict=True):
        yield dict(zip(fields, values, strict=True))


def _values(field: str, values: Iterable[Any]) -> list[Any]:
    """Return the values of a field; a text is one value, and its letters are none."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{field} has the one value {values!r}; give a tuple of values: ({values!r},)")
    return list(values)


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

    Raises:
      ValueError: there are too few parts for the keys.

    Example: `simplex("data.ratios", (1, 2), 3)` yields `{1: 1, 2: 2}` and `{1: 2, 2: 1}`.
    """
    if parts < least * len(keys):
        raise ValueError(f"{parts} parts of {field} are too few for {len(keys)} keys of at least {least} each")
    for shares in itertools.product(range(least, parts + 1), repeat=len(keys)):
        if sum(shares) == parts:
            yield {field: {key: share for key, share in zip(keys, shares, strict=True) if share}}
