"""Plans of steps: the examples that share each row of each step, by either way of counting a step.

Both plans have `of_step(step)`, the rows of a step that have examples, and know the `rows` of a step, the
`steps_per_epoch` (not a whole number), the `total_steps` of the run, and `useful`, the share of positions that are not
padding, on each side of a row.
"""

import bisect
import functools
import math

import numpy as np
from jaxtyping import Int, Int64

from coi_jax.common.errors import UserError
from coi_jax.common.progress import track
from coi_jax.config.run import EpochsConfig, ExampleBatchConfig, RunConfig, TokenBatchConfig
from coi_jax.data.mixing import ROWS, STRATA, Order, Stream, permutation, random_numbers, take
from coi_jax.data.packing import pack

Rows = list[Int64[np.ndarray, "_"]]  # the examples of each row, by their numbers in the stream
Needs = Int[np.ndarray, "examples sides"]
MOST_EPOCHS_PER_STEP = 1000


class ExamplesPlan:
    """A step takes N examples of the stream, packed by themselves into a fixed number of rows.

    Within each block of the stream, steps share out the examples by their lengths: sorted by length and cut into N
    strata, each stratum gives one example to each step. So all steps need nearly the same number of rows, and few
    positions are padding.

    Raises:
      UserError: the config's rows do not hold the fullest step, or do not divide.
    """

    def __init__(
        self, config: RunConfig, stream: Stream, needs: Needs, capacity: tuple[int, ...], multiple: int
    ) -> None:
        self._stream, self._needs, self._capacity, self._seed = stream, needs, capacity, config.seed
        assert isinstance(config.data.batch, ExampleBatchConfig)
        self._examples = config.data.batch.examples
        self.steps_per_epoch = stream.block_size / self._examples
        _check_step("config.data.batch.examples", self._examples, self.steps_per_epoch)
        # The product may miss a whole number by a rounding error, which must not cost a step.
        epochs, length = isinstance(config.train.length, EpochsConfig), config.train.length.count
        self._end = round(length * stream.block_size) if epochs else int(length) * self._examples
        self.total_steps = -(-self._end // self._examples)
        _check_length(float(length), self.total_steps, self.steps_per_epoch)
        self._balanced = functools.lru_cache(maxsize=2)(self._balance)
        self._steps = [self._pack_step(step) for step in track(range(self.total_steps), "packing", self.total_steps)]
        self.rows = _rows_for(config.data.batch.rows, max(map(len, self._steps)), multiple)
        self.useful = self._useful()

    def of_step(self, step: int) -> Rows:
        """Return the rows of a step that have examples; at most `rows`."""
        return self._steps[step]

    def _pack_step(self, step: int) -> Rows:
        start = step * self._examples
        stop = min(start + self._examples, self._end)
        examples = take(self._balanced, self._stream.block_size, start, stop)
        return [examples[row] for row in pack(self._needs[examples], self._capacity)]

    def _balance(self, block: int) -> Order:
        """Return the examples of a block, each step's together."""
        order = self._stream.block(block)
        lengths = (self._needs[order] / np.array(self._capacity)).max(1)
        slots = strata_order(block * len(order), len(order), self._examples, self._seed, block)
        balanced = np.empty_like(order)
        balanced[slots] = order[np.argsort(lengths, kind="stable")]
        return balanced

    def _useful(self) -> list[float]:
        places = self.total_steps * self.rows * np.array(self._capacity)
        used = sum(self._needs[np.concatenate(rows)].sum(0) for rows in self._steps)
        shares: list[float] = (used / places).tolist()
        return shares


def strata_order(start: int, size: int, examples: int, *seed: int) -> Order:
    """Return the places of a block's examples in the stream, from its start, for the shortest example to the longest.

    A step that has n of the block's places gets one example of each n-th of them, at random; the steps at either end of
    the block may have fewer places than others.

    Args:
      start: the first place of the block.
      size: places of the block.
      examples: places of a step.
      seed: of the random numbers.
    """
    steps = (start + np.arange(size)) // examples
    _, first, counts = np.unique(steps, return_index=True, return_counts=True)
    step = steps - steps[0]
    drawn = random_numbers(size, STRATA, *seed) / 2.0**64
    quantiles = (np.arange(size) - first[step] + drawn) / counts[step]
    return np.argsort(quantiles, kind="stable")


def _check_step(field: str, count: int, steps_per_epoch: float) -> None:
    """Raise UserError where one step reads the data so often that its size can only be a mistake."""
    if steps_per_epoch * MOST_EPOCHS_PER_STEP < 1:
        hint = f"one step reads the data {1 / steps_per_epoch:,.0f} times; give at most"
        raise UserError(field, count, f"{hint} {int(count * steps_per_epoch * MOST_EPOCHS_PER_STEP):,}")


def _check_length(epochs: float, total_steps: int, steps_per_epoch: float) -> None:
    """Raise UserError where a number of epochs is no step."""
    if total_steps < 1:
        hint = f"makes no step; a whole step takes {1 / steps_per_epoch:.3g} epochs, so give at least that"
        raise UserError("config.train.length.count", epochs, hint)


def _rows_for(asked: int | None, fullest: int, multiple: int) -> int:
    """Return the rows of a step: as asked, or as many as the fullest step needs."""
    needed = -(-fullest // multiple) * multiple
    if asked and asked < fullest:
        raise UserError(
            "config.data.batch.rows",
            asked,
            f"the fullest step needs {fullest} rows: give {needed}, or None to have it worked out",
        )
    if asked:
        check_divides(asked, multiple)
    return asked or needed


def check_divides(rows: int, multiple: int) -> None:
    """Raise UserError where devices and microbatches do not share a step's rows evenly."""
    if rows % multiple:
        below, above = rows // multiple * multiple, -(-rows // multiple) * multiple
        choice = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            "config.data.batch.rows",
            rows,
            f"must be a multiple of data-parallel devices × microbatches, {multiple}: give {choice}",
        )


class TokensPlan:
    """Every block of the stream is packed whole and its rows shuffled; a step takes the next rows.

    Raises:
      UserError: the config's rows do not divide.
    """

    def __init__(
        self, config: RunConfig, stream: Stream, needs: Needs, capacity: tuple[int, ...], multiple: int
    ) -> None:
        check_divides(config.data.batch.rows or 0, multiple)
        self._stream, self._needs, self._capacity, self._seed = stream, needs, capacity, config.seed
        self._same_size = stream.blocks_are_alike
        assert isinstance(config.data.batch, TokenBatchConfig)
        self.rows = config.data.batch.rows
        self._starts = [0]  # the first row of each block, as far as it was asked for
        self._block = functools.lru_cache(maxsize=2)(self._pack_block)
        first = len(self._block(0))
        self.steps_per_epoch = first / self.rows
        _check_step("config.data.batch.rows", self.rows, self.steps_per_epoch)
        epochs, length = isinstance(config.train.length, EpochsConfig), config.train.length.count
        self._end = self._rows_of_epochs(length) if epochs else int(length) * self.rows
        self.total_steps = -(-self._end // self.rows)
        _check_length(float(length), self.total_steps, self.steps_per_epoch)
        self.useful = (needs[stream.block(0)].sum(0) / (first * np.array(capacity))).tolist()

    def _pack_block(self, block: int) -> Rows:
        examples = self._stream.block(block)
        rows = pack(self._needs[examples], self._capacity)
        return [examples[rows[row]] for row in permutation(len(rows), self._seed, ROWS, block)]

    def _start(self, block: int) -> int:
        """Return the first row of a block. Blocks of the same examples have as many rows, whatever their order."""
        if self._same_size:
            return block * len(self._block(0))
        while len(self._starts) <= block:
            self._starts.append(self._starts[-1] + len(self._block(len(self._starts) - 1)))
        return self._starts[block]

    def _rows_of_epochs(self, epochs: float) -> int:
        part, whole = math.modf(epochs)
        rows = self._start(int(whole))
        return rows + round(part * len(self._block(int(whole)))) if part else rows

    def _block_of(self, row: int) -> int:
        if self._same_size:
            return row // len(self._block(0))
        while self._starts[-1] <= row:
            self._start(len(self._starts))
        return bisect.bisect_right(self._starts, row) - 1

    def of_step(self, step: int) -> Rows:
        """Return the rows of a step that have examples; `rows`, but for the last step of a run counted in epochs."""
        row, end = step * self.rows, min((step + 1) * self.rows, self._end)
        rows: Rows = []
        while row < end:
            block = self._block_of(row)
            start = self._start(block)
            part = self._block(block)[row - start : end - start]
            rows += part
            row += len(part)
        return rows


Plan = ExamplesPlan | TokensPlan
