"""Which combinations of operations and which inputs belong to which split: pure functions, whatever the seed.

A *combination* is the sequence of a chain's operations. One in `one_in` of those of two or more is held out: the one
whose operations' numbers (`catalogue.numbers`) have a sum that `one_in` divides. So every operation is held out at
every position about equally often, and a held-out combination is held out in any order. A combination is *taught* if
no run of two or more of its operations is held out: the pairs of a test chain of two steps never stand side by side in
training, in a chain of any length. Single operations are all taught; their splits differ by input only.

An input's split follows from a hash of its text, so data sets made with different seeds may be pooled.
"""

import hashlib
from collections.abc import Sequence

from data_pipeline.procedural.catalogue import numbers

TRAIN, VALIDATION, TEST, REPHRASED = "train", "validation", "test", "rephrased"

_BUCKETS = {0: TEST, 1: VALIDATION, 2: REPHRASED}
_BUCKET_COUNT = 10


def input_split(text: str) -> str:
    """The split that an input belongs to: a tenth to each of test, validation and rephrased, the rest to train."""
    bucket = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") % _BUCKET_COUNT
    return _BUCKETS.get(bucket, TRAIN)


def is_held_out(names: Sequence[str], one_in: int) -> bool:
    """Whether a combination is never used in training, alone or inside a longer one."""
    return len(names) > 1 and sum(numbers()[name] for name in names) % one_in == 0


def is_taught(names: Sequence[str], one_in: int) -> bool:
    """Whether a combination may be used in training: it holds no held-out run of operations."""
    starts = range(len(names) - 1)
    return not any(
        is_held_out(names[start:end], one_in) for start in starts for end in range(start + 2, len(names) + 1)
    )
