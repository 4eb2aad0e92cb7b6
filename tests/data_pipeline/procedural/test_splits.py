"""The rules of the splits: pure, without regard to order, and of the promised shares."""

import collections
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.procedural.catalogue import by_name, families, numbers
from data_pipeline.procedural.splits import input_split, is_held_out, is_taught
from data_pipeline.procedural.values import DATES, NUMBERS, PARAGRAPH, RECORD, SCORES, SENTENCE, WORDS, ValueType

combinations = st.lists(st.sampled_from(sorted(by_name())), min_size=1, max_size=6)


@given(combinations, st.integers(2, 9), st.randoms())
def test_what_is_held_out_is_held_out_in_any_order(names: list[str], one_in: int, random: object) -> None:
    shuffled = sorted(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert is_held_out(shuffled, one_in) == is_held_out(names, one_in)


@given(combinations, st.integers(2, 9))
def test_a_taught_combination_is_made_of_taught_ones(names: list[str], one_in: int) -> None:
    if is_taught(names, one_in):
        assert not is_held_out(names, one_in)
        assert is_taught(names[1:], one_in)
        assert is_taught(names[:-1], one_in)


@given(combinations, combinations, st.integers(2, 9))
def test_a_held_out_combination_is_nowhere_in_a_taught_one(first: list[str], rest: list[str], one_in: int) -> None:
    if is_held_out(first, one_in):
        assert not is_taught([*first, *rest], one_in)
        assert not is_taught([*rest, *first], one_in)


def test_single_operations_are_all_taught() -> None:
    assert all(is_taught([name], 5) and not is_held_out([name], 5) for name in by_name())


def test_every_operation_is_held_out_about_as_often_as_any_other() -> None:
    lists = [operation.name for operation in families()["lists"] if not operation.closed]
    held_out = [sum(is_held_out([name, other], 5) for other in lists) for name in lists]
    assert set(held_out) <= {len(lists) // 5, len(lists) // 5 + 1}


def test_one_triple_in_five_is_held_out() -> None:
    triples = list(itertools.product(sorted(by_name())[:30], repeat=3))
    assert sum(is_held_out(triple, 5) for triple in triples) / len(triples) == pytest.approx(0.2, abs=0.02)


def test_a_tenth_of_the_inputs_goes_to_each_split_but_train() -> None:
    counts = collections.Counter(input_split(str(number)) for number in range(20_000))
    assert counts.pop("train") == pytest.approx(14_000, rel=0.03)
    assert sorted(counts) == ["rephrased", "test", "validation"]
    assert all(count == pytest.approx(2_000, rel=0.1) for count in counts.values())


def test_the_rules_are_the_same_for_everybody() -> None:
    """Values written down, because data sets made apart must agree."""
    assert input_split("river, lamp, stone") == "validation"
    assert numbers()["reverse_words"] == 0
    assert numbers()["remove_first_word"] == 1
    assert is_held_out(["remove_first_word", "keep_last_two_words"], 5)
    assert is_taught(["remove_first_word", "reverse_words"], 5)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (WORDS, ""),
        (WORDS, "river,lamp"),
        (WORDS, "two words"),
        (NUMBERS, "7, x"),
        (NUMBERS, "7,8"),
        (SENTENCE, "No mark"),
        (SENTENCE, "."),
        (SENTENCE, "Two. Sentences."),
        (PARAGRAPH, "It rains. and"),
        (DATES, "2021-02-30"),
        (DATES, "14 March 2021"),
        (RECORD, "name: Ada, city: Oslo"),
        (RECORD, "name"),
        (SCORES, "Ada: many"),
    ],
)
def test_a_text_of_another_form_is_refused(kind: ValueType, text: str) -> None:
    with pytest.raises(ValueError, match=r"not |invalid|day|month"):
        kind.read(text)
