import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.release.row_places import align

BLOCKS = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("candidates", "places"),
    [
        ([], []),
        ([{0, 1}, {0, 1}], [0, 1]),
        ([{5}, {2, 6}], [5, 6]),
        ([{2, 6}, {7}], [6, 7]),
        ([set(), {3, 0}, {4}], [None, 3, 4]),
        ([{0, 1}, {0}], [1, 0]),
    ],
)
def test_neighbors_tell_the_place(candidates: list[set[int]], places: list[int | None]) -> None:
    assert align(candidates) == places


@given(BLOCKS, st.data())
def test_blocks_in_any_order_are_found_again(sizes: list[int], data: st.DataObject) -> None:
    """One row of each block is certain, the others could be at a place of another block too."""
    total = sum(sizes)
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    order = data.draw(st.permutations(range(len(sizes))))
    truth = [starts[block] + offset for block in order for offset in range(sizes[block])]
    certain = {starts[block] + data.draw(st.integers(0, sizes[block] - 1)) for block in order}
    far = 10 * total  # no row of the copy is near to it
    assert align([{place} if place in certain else {place, far + place} for place in truth]) == truth
