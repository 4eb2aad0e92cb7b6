from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.percentiles import percentiles


@given(st.lists(st.integers(-1000, 100_000), min_size=1, max_size=300), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[int], share: int) -> None:
    (found,) = percentiles(values, [share])
    assert found in values
    assert sum(value <= found for value in values) * 100 >= share * len(values)
    assert sum(value < found for value in values) * 100 < share * len(values)
