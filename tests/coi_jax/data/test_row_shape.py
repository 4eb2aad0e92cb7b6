from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coi_jax.data.row_shape import RowShape

DECODER, BEGINS, T5 = RowShape(10, 0, 0), RowShape(10, 0, 1), RowShape(10, 4, 0)
Rule = Literal["drop", "cut_inputs", "cut_targets"]
RULES: tuple[Rule, ...] = ("drop", "cut_inputs", "cut_targets")
LENGTHS = np.array([[5, 6], [5, 7], [12, 3], [3, 12], [30, 30]], np.int32)

lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=30).map(
    lambda pairs: np.array(pairs, np.int32)
)


@given(lengths=lengths, shape=st.sampled_from([DECODER, BEGINS, T5]), rule=st.sampled_from(RULES))
def test_what_is_kept_fits_and_only_the_named_side_is_cut(lengths: np.ndarray, shape: RowShape, rule: Rule) -> None:
    fitted = shape.fit(lengths, rule)
    kept = fitted.lengths[fitted.kept]
    assert (shape.needs(kept) <= np.array(shape.capacity)).all()
    assert (kept > 0).all()
    assert ((kept < lengths[fitted.kept]).any(1) == fitted.cut[fitted.kept]).all()
    assert not (fitted.cut & ~fitted.kept).any()
    whole = (shape.needs(lengths) <= np.array(shape.capacity)).all(1)
    assert (fitted.lengths[whole] == lengths[whole]).all()
    assert fitted.kept[whole].all()
    untouched = {"drop": [0, 1], "cut_inputs": [1], "cut_targets": [0]}[rule]
    assert (kept[:, untouched] == lengths[fitted.kept][:, untouched]).all()


def test_a_decoder_does_not_read_its_last_id() -> None:
    assert DECODER.needs(LENGTHS)[:2].tolist() == [[10], [11]]
    assert BEGINS.needs(LENGTHS)[:2].tolist() == [[11], [12]]
    assert T5.needs(LENGTHS)[:2].tolist() == [[5, 6], [5, 7]]


@pytest.mark.parametrize(
    ("shape", "rule", "kept"),
    [
        (DECODER, "drop", [[5, 6]]),
        (DECODER, "cut_inputs", [[5, 6], [4, 7], [8, 3]]),
        (DECODER, "cut_targets", [[5, 6], [5, 6], [3, 8]]),
        (BEGINS, "cut_inputs", [[4, 6], [3, 7], [7, 3]]),
        (T5, "drop", []),
        (T5, "cut_inputs", [[10, 3]]),
        (T5, "cut_targets", [[5, 4], [5, 4], [3, 4]]),
    ],
)
def test_the_rules(shape: RowShape, rule: Rule, kept: list[list[int]]) -> None:
    fitted = shape.fit(LENGTHS, rule)
    assert fitted.lengths[fitted.kept].tolist() == kept
