import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coi_jax.data.packing import pack

needs = st.lists(st.integers(1, 40), min_size=0, max_size=80).map(
    lambda sizes: np.array(sizes, np.int64).reshape(-1, 1)
)
two_sided = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 15)), max_size=80).map(
    lambda sizes: np.array(sizes, np.int64).reshape(-1, 2)
)


@pytest.mark.parametrize(("strategy", "capacity"), [(needs, (40,)), (two_sided, (40, 15))])
@settings(max_examples=100)
@given(data=st.data())
def test_every_example_once_and_no_row_over_capacity(
    strategy: st.SearchStrategy[np.ndarray], capacity: tuple[int, ...], data: st.DataObject
) -> None:
    sizes = data.draw(strategy)
    rows = pack(sizes, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert all((sizes[row].sum(0) <= np.array(capacity)).all() for row in rows)
    assert all(rows)
    shuffled = pack(sizes[np.random.default_rng(0).permutation(len(sizes))], capacity)
    assert len(shuffled) == len(rows)


@given(needs)
@settings(max_examples=100)
def test_no_two_rows_could_be_one(sizes: np.ndarray) -> None:
    used = sorted(int(sizes[row].sum()) for row in pack(sizes, (40,)))
    assert len(used) < 2 or used[0] + used[1] > 40


def test_an_exact_fit_is_found() -> None:
    rows = pack(np.array([[60], [50], [40], [30], [20]]), (100,))
    assert sorted(sorted(row) for row in rows) == [[0, 2], [1, 3, 4]]


def test_an_example_longer_than_a_row() -> None:
    with pytest.raises(ValueError, match="more than"):
        pack(np.array([[5], [41]]), (40,))


def test_a_hundred_thousand_examples_in_a_moment_and_full() -> None:
    sizes = np.random.default_rng(0).gamma(2.0, 150.0, (100_000, 1)).astype(np.int64).clip(1, 2048)
    began = time.process_time()
    rows = pack(sizes, (2048,))
    assert time.process_time() - began < 5
    assert sizes.sum() / (len(rows) * 2048) > 0.99
