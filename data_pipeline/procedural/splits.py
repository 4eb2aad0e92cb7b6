"""Assigns combinations of operations and inputs to splits: pure functions, independent of the seed.

A *combination* is the sequence of a chain's operations. Of those of two operations or more one in `one_in` is held out:
a pair if `one_in` divides the sum of its operations' numbers (`catalogue.numbers`), so that every operation is held out
at both places about equally often; a longer one by a hash of its operations. Neither regards order: what is held out is
held out in any order. A combination is *taught* if no run of two or more of its operations is held out: the pairs of a
test chain of two steps never stand side by side in training, in a chain of any length. Single operations are all
taught; their splits differ by input only.

An input's split follows from a hash of its text, so data sets made with different seeds may be pooled.
"""

import hashlib
from collections.abc import Sequence

from data_pipeline.procedural.catalogue import numbers

ALL = TRAIN, VALIDATION, TEST, REPHRASED = "train", "validation", "test", "rephrased"

_BUCKETS = {0: TEST, 1: VALIDATION, 2: REPHRASED}
_BUCKET_COUNT = 10


def input_split(text: str) -> str:
    """Return the split of an input: a tenth each for test, validation and rephrased, the rest for train."""
    return _BUCKETS.get(_hash(text) % _BUCKET_COUNT, TRAIN)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def is_held_out(names: Sequence[str], one_in: int) -> bool:
    """Return whether a combination is never used in training, alone or inside a longer one."""
    if len(names) < 2:
        return False
    number = sum(numbers()[name] for name in names) if len(names) == 2 else _hash(" ".join(sorted(names)))
    return number % one_in == 0


def is_taught(names: Sequence[str], one_in: int) -> bool:
    """Return whether a combination may be used in training: it holds no held-out run of operations."""
    return all(stays_taught(names[:end], one_in) for end in range(2, len(names) + 1))


def stays_taught(names: Sequence[str], one_in: int) -> bool:
    """Return whether a combination that is taught without its last operation is so with it."""
    return not any(is_held_out(names[start:], one_in) for start in range(len(names) - 1))
