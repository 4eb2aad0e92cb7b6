"""A part of the examples for experiments on the size of the data: the first of an order that follows from the seed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from coi_jax.common.errors import UserError
from coi_jax.data.mixing import SUBSET, permutation

Places = Int[np.ndarray, "_"]


def first_examples(sizes: Sequence[int], count: int, seed: int) -> list[Places]:
    """Return the places in each task of the first examples of a seeded order, sorted.

    In that order each task is spread evenly, so that any beginning of it has the tasks in proportion to their sizes. A
    smaller number of examples is part of any larger one.

    Args:
      sizes: the number of examples of each task.
      count: examples to take, of all tasks together.
      seed: of the order.

    Raises:
      UserError: there are fewer examples, or so few are taken that a task has none.
    """
    if count > sum(sizes):
        hint = f"only {sum(sizes):,} examples fit a row; give at most that, or None for all"
        raise UserError("config.data.max_examples", count, hint)
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    spread = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    order = tasks[np.argsort(spread, kind="stable")]
    enough = 1 + max(int(np.argmax(order == task)) for task in range(len(sizes)))
    if count < enough:
        hint = f"leaves no example of one of the chain lengths; give at least {enough}"
        raise UserError("config.data.max_examples", count, hint)
    taken = np.bincount(order[:count], minlength=len(sizes)).tolist()
    return [
        np.sort(permutation(size, seed, SUBSET, task)[:number])
        for task, (size, number) in enumerate(zip(sizes, taken, strict=True))
    ]
