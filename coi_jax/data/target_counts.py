"""Count the targets that each device has in each microbatch of a step."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Examples = Int[np.ndarray, "_"]  # of one row, by their numbers in the stream


def row_targets(
    examples: Examples, needs: Int[np.ndarray, " N"], targets: Int[np.ndarray, " N"], bounds: Int[np.ndarray, " bounds"]
) -> Int[np.ndarray, " parts"]:
    """Return the number of targets in each part of a row, whose examples lie one after another.

    Args:
      examples: of the row, in their order.
      needs: positions that each example of the stream takes.
      targets: targets of each example, which are the last of its positions.
      bounds: the first position of each part, and the end of the row.
    """
    ends = np.cumsum(needs[examples])[:, None]
    starts = ends - targets[examples][:, None]
    inside = np.minimum(ends, bounds[1:]) - np.maximum(starts, bounds[:-1])
    counts: np.ndarray = inside.clip(min=0).sum(0)
    return counts


def most_targets(rows: Sequence[Int[np.ndarray, " parts"]], row_count: int, data_parts: int, microbatches: int) -> int:
    """Return the most targets that a device has in a microbatch.

    Args:
      rows: the targets in each part of each row that has examples, in the order of the rows.
      row_count: rows of the step, the empty ones included.
      data_parts: devices that share out the rows, neighbors together.
      microbatches: parts of each device's rows; part i has every row whose index is i modulo their number.
    """
    counts = np.zeros((row_count, *rows[0].shape), np.int64)
    counts[: len(rows)] = rows
    of_parts = counts.reshape(data_parts, -1, microbatches, *rows[0].shape).sum(1)
    return int(of_parts.max())
