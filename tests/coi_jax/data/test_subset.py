import pytest
from hypothesis import given
from hypothesis import strategies as st

from coi_jax.common.errors import UserError
from coi_jax.data.subset import first_examples


def taken(sizes: list[int], count: int, seed: int) -> list[set[int]]:
    return [set(places.tolist()) for places in first_examples(sizes, count, seed)]


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4), seed=st.integers(0, 3), data=st.data())
def test_fewer_examples_are_part_of_more_and_each_task_has_its_share(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    whole = sum(sizes)
    enough = next(count for count in range(1, whole + 1) if is_enough(sizes, count))
    fewer, more = sorted(data.draw(st.lists(st.integers(enough, whole), min_size=2, max_size=2)))
    small, large = taken(sizes, fewer, seed), taken(sizes, more, seed)
    assert sum(map(len, small)) == fewer
    assert all(part <= other for part, other in zip(small, large, strict=True))
    for part, size in zip(small, sizes, strict=True):
        assert abs(len(part) - fewer * size / whole) <= len(sizes) / 2 + 0.5
        assert part <= set(range(size))
    assert taken(sizes, whole, seed) == [set(range(size)) for size in sizes]


def is_enough(sizes: list[int], count: int) -> bool:
    try:
        return bool(first_examples(sizes, count, 0))
    except UserError:
        return False


def test_another_seed_takes_others() -> None:
    assert taken([100, 50], 30, 0) != taken([100, 50], 30, 1)


def test_numbers_that_cannot_be_taken_name_one_that_can() -> None:
    with pytest.raises(
        UserError, match=r"config\.data\.max_examples: 31: only 30 examples fit a row; give at most that"
    ):
        first_examples([20, 10], 31, 0)
    with pytest.raises(
        UserError, match=r"leaves no example of one of the chain lengths; give at least (\d+)"
    ) as caught:
        first_examples([20, 2], 3, 0)
    enough = int(str(caught.value).rsplit(" ", 1)[1])
    assert all(len(places) for places in first_examples([20, 2], enough, 0))
    with pytest.raises(UserError, match="give at least"):
        first_examples([20, 2], enough - 1, 0)
