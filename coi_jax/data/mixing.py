"""The order of examples: an endless stream of blocks that is a pure function of the seed.

*concatenate*: block e is epoch e, every example once, in an order of its own. *rates*: every block has as many examples
of each task as its mixing rate says (to within one, and never drifting); each task goes through its own examples again
and again, in an order of its own each time.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt64

Order = Int64[np.ndarray, " examples"]

# What random numbers are of, so that no two sequences are alike.
_EPOCH, _TASK, _BLOCK, ROWS, STRATA, SUBSET, STAGE = range(7)


@functools.lru_cache(maxsize=16)
def permutation(size: int, *seed: int) -> Order:
    """Return a permutation of `range(size)`: the ranks of random numbers."""
    return np.argsort(random_numbers(size, *seed), kind="stable")


def random_numbers(size: int, *seed: int) -> UInt64[np.ndarray, " size"]:
    """Return raw Philox numbers, which no release of numpy changes."""
    return np.random.Philox(np.random.SeedSequence(seed)).random_raw(size)


class Stream:
    """The examples of several tasks, numbered through task after task, in the order that training meets them.

    Attributes:
      block_size: examples of a block.
      blocks_are_alike: whether all blocks have the same examples, each in an order of its own.

    Args:
      sizes: the number of examples of each task.
      rates: SeqIO's mixing rate of each task; "concatenate" does not look at them.
      mixing: see the module.
      seed: of the order.
    """

    def __init__(
        self, sizes: Sequence[int], rates: Sequence[float], mixing: Literal["concatenate", "rates"], seed: int
    ) -> None:
        self._sizes, self._mixing, self._seed = tuple(sizes), mixing, seed
        self._first = np.cumsum([0, *sizes])
        shares = np.array(rates, np.float64) / sum(rates)
        self._share_up_to = np.cumsum(shares)
        self._share_up_to[-1] = 1.0
        self.blocks_are_alike = mixing == "concatenate"
        # Rounding moves a quota by less than two: blocks that hold two of every task have no negative quota.
        self.block_size = sum(sizes) if mixing == "concatenate" else max(sum(sizes), math.ceil(2 / shares.min()))

    def block(self, number: int) -> Order:
        """Return the examples of one block, in order."""
        if self._mixing == "concatenate":
            return permutation(self.block_size, self._seed, _EPOCH, number)
        starts, stops = self._taken(number), self._taken(number + 1)
        parts = [self._of_task(task, *span) for task, span in enumerate(zip(starts, stops, strict=True))]
        order: Order = np.concatenate(parts)[permutation(self.block_size, self._seed, _BLOCK, number)]
        return order

    def _taken(self, blocks: int) -> list[int]:
        """Return how many examples of each task the first blocks have; exact in closed form."""
        up_to = np.floor(blocks * self.block_size * self._share_up_to + 0.5).astype(np.int64)
        counts: list[int] = np.diff(up_to, prepend=0).tolist()
        return counts

    def _of_task(self, task: int, start: int, stop: int) -> Order:
        """Positions [start, stop) of a task's own endless order."""
        size = self._sizes[task]
        epochs = range(start // size, -(-stop // size))
        whole = [permutation(size, self._seed, _TASK, task, epoch) for epoch in epochs]
        if not whole:
            return np.zeros(0, np.int64)
        first = epochs[0] * size
        order: Order = self._first[task] + np.concatenate(whole)[start - first : stop - first]
        return order


def take(block_of: Callable[[int], Order], block_size: int, start: int, stop: int) -> Order:
    """Return the places [start, stop) of a stream.

    Args:
      block_of: returns a block of the stream by its number.
      block_size: places of a block.
      start: the first place.
      stop: the place after the last.
    """
    blocks = range(start // block_size, -(-stop // block_size))
    if not blocks:
        return np.zeros(0, np.int64)
    first = blocks[0] * block_size
    order: Order = np.concatenate([block_of(number) for number in blocks])[start - first : stop - first]
    return order
