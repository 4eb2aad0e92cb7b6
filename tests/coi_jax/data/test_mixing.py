from collections import Counter
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coi_jax.data.mixing import Order, Stream, permutation, take

SIZES, RATES = (7, 20, 3), (1.0, 2.0, 0.5)


Mixing = Literal["concatenate", "rates"]


def taken(stream: Stream, start: int, stop: int) -> Order:
    return take(stream.block, stream.block_size, start, stop)


@pytest.mark.parametrize("mixing", ["concatenate", "rates"])
@given(cuts=st.lists(st.integers(0, 200), min_size=1, max_size=8))
@settings(max_examples=50)
def test_however_it_is_cut_the_stream_is_the_same(mixing: Mixing, cuts: list[int]) -> None:
    stream = Stream(SIZES, RATES, mixing, seed=3)
    ends = sorted({0, 200, *cuts})
    parts = [taken(stream, start, stop) for start, stop in pairwise(ends)]
    assert np.concatenate(parts).tolist() == taken(stream, 0, 200).tolist()


def test_concatenate_has_each_example_once_an_epoch_in_a_new_order() -> None:
    stream = Stream(SIZES, RATES, "concatenate", seed=0)
    epochs = [taken(stream, 30 * epoch, 30 * (epoch + 1)).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert taken(Stream(SIZES, RATES, "concatenate", seed=1), 0, 30).tolist() != epochs[0]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    data=st.data(),
    blocks=st.integers(1, 6),
)
@settings(max_examples=100)
def test_rates_are_kept_without_drift(sizes: list[int], data: st.DataObject, blocks: int) -> None:
    rates = data.draw(st.lists(st.floats(0.05, 10), min_size=len(sizes), max_size=len(sizes)))
    stream = Stream(sizes, rates, "rates", seed=0)
    end = blocks * stream.block_size
    examples = taken(stream, 0, end)
    assert len(examples) == end
    tasks = np.searchsorted(np.cumsum(sizes), examples, side="right")
    for task, (size, rate) in enumerate(zip(sizes, rates, strict=True)):
        mine = examples[tasks == task]
        assert abs(len(mine) - end * rate / sum(rates)) <= 1.001
        seen = Counter(mine.tolist())
        assert max(seen.values(), default=0) - (min(seen.values()) if len(seen) == size else 0) <= 1


def test_rates_of_example_counts_are_epochs() -> None:
    stream = Stream(SIZES, [float(size) for size in SIZES], "rates", seed=0)
    assert all(sorted(stream.block(number)) == list(range(30)) for number in range(5))


def test_permutations_are_pinned() -> None:
    """A new numpy must not change what a run that is resumed would read."""
    assert permutation(8, 0, 1).tolist() == [3, 7, 4, 2, 1, 6, 5, 0]
    assert sorted(permutation(1000, 5).tolist()) == list(range(1000))
