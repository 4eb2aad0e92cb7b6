"""Grids of sweeps, by their properties."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import grids

FIELDS = st.dictionaries(
    st.sampled_from("abc"), st.lists(st.integers(), min_size=1, max_size=3, unique=True), min_size=1
)


@given(FIELDS)
def test_a_product_has_every_combination_once(fields: dict[str, list[int]]) -> None:
    points = list(grids.product(fields))
    combinations = list(itertools.product(*fields.values()))
    assert [tuple(point.values()) for point in points] == combinations
    assert len(combinations) == len(set(combinations))


def test_zipped_goes_side_by_side_and_refuses_unequal_lengths() -> None:
    assert list(grids.zipped({"a": (1, 2), "b": (3, 4)})) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    with pytest.raises(ValueError, match=r"different numbers of values: a 2, b 1$"):
        list(grids.zipped({"a": (1, 2), "b": (3,)}))


def test_one_value_is_no_sequence_of_values() -> None:
    for grid in (grids.product, grids.zipped):
        with pytest.raises(ValueError, match=r"^arm has the one value 'coi1'; give a tuple of values: \('coi1',\)"):
            list(grid({"arm": "coi1"}))
    with pytest.raises(ValueError, match=r"^seed has the one value 3"):
        list(grids.product({"seed": 3}))  # type: ignore[dict-item]


@given(st.integers(2, 8), st.integers(0, 2))
def test_a_simplex_shares_out_all_parts(parts: int, least: int) -> None:
    grid = grids.simplex("data.ratios", (1, 2, 3), parts, least=least)
    if parts < 3 * least:
        with pytest.raises(ValueError, match=rf"^{parts} parts of data.ratios are too few for 3 keys"):
            list(grid)
        return
    points = [point["data.ratios"] for point in grid]
    assert all(sum(shares.values()) == parts for shares in points)
    assert all(share >= max(least, 1) for shares in points for share in shares.values())
    free = parts - 3 * least
    assert len(points) == (free + 1) * (free + 2) // 2  # stars and bars
    assert len({tuple(sorted(shares.items())) for shares in points}) == len(points)


def test_grids_combine() -> None:
    seeds = [{"seed": 0}, {"seed": 1}]
    assert list(grids.crossed([{"arm": "coi1", "seed": 9}], seeds)) == [{"arm": "coi1", **seed} for seed in seeds]
    assert list(grids.chain(seeds, [{"seed": 2}])) == [*seeds, {"seed": 2}]
