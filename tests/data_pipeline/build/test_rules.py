import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.build import rules
from data_pipeline.build.drafts import Instance, Seed
from data_pipeline.build.rules import CLOSED, LAST, OK, CategoryRule, PairRules, Role, Rules, judge

CATEGORIES = sorted(rules.load().categories)
KINDS = sorted(rules.load().kinds)


def seed(name: str, category: str | None, **changes: object) -> Seed:
    made = Seed(name, "s", "l", name, "train", category, "d", "i", (), "", False, (Instance("a", "x", "y"),))
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


categories = st.sampled_from([*CATEGORIES, None])
seeds = st.builds(seed, st.uuids().map(str), categories, closed=st.booleans())


@given(seeds, seeds)
def test_what_gives_a_closed_answer_comes_last_whatever_its_category(first: Seed, second: Seed) -> None:
    role = Role.of(first)
    if first.closed or role.gives == CLOSED:
        assert judge(role, Role.of(second)) == rules.NOT_BEFORE
        assert role.places <= {LAST}


@given(seeds, seeds)
def test_what_follows_takes_what_came_before(first: Seed, second: Seed) -> None:
    if judge(Role.of(first), Role.of(second)) == OK:
        assert Role.of(first).gives in Role.of(second).takes


@pytest.mark.parametrize(
    ("first", "second", "follows"),
    [
        ("Summarization", "Title Generation", True),
        ("Summarization", "Sentiment Analysis", True),
        ("Sentiment Analysis", "Summarization", False),
        ("Summarization", "Code to Text", False),
        ("Program Execution", "Story Composition", False),
        ("Title Generation", "Data to Text", False),
        ("Information Extraction", "Data to Text", True),
        ("Text to Code", "Code to Text", True),
    ],
)
def test_rules_that_the_paper_names_or_its_release_shows(first: str, second: str, follows: bool) -> None:
    assert (judge(Role.of(seed("a", first)), Role.of(seed("b", second))) == OK) == follows


@pytest.mark.parametrize("category", CATEGORIES)
def test_classification_comes_last_only(category: str) -> None:
    if "Classification" in category or category.endswith(("Detection", "Recognition")):
        role = Role.of(seed("a", category))
        assert role.gives != CLOSED or role.places == {LAST}
    if "Classification" in category:
        assert Role.of(seed("a", category)).gives == CLOSED


def test_every_category_that_can_follow_something_does() -> None:
    gives = {
        Role.of(seed("a", category)).gives for category in CATEGORIES if Role.of(seed("a", category)).places - {LAST}
    }
    alone = [category for category in CATEGORIES if not gives & Role.of(seed("a", category)).takes]
    assert not [category for category in alone if "first" not in rules.load().categories[category].places]


def test_a_task_of_an_unknown_category_takes_any_text() -> None:
    role = Role.of(seed("a", "Interpretive Dance"))
    assert role.takes == frozenset(KINDS)


def test_tasks_of_two_splits_and_a_task_with_itself_are_no_pairs() -> None:
    one, other = seed("a", "Summarization"), seed("b", "Summarization", split="test")
    judged = PairRules([one, other])
    assert judged.pair(one, other) == rules.OTHER_SPLIT
    assert judged.pair(one, one) == rules.SAME_TASK


def test_all_pairs_get_one_of_the_reasons() -> None:
    some = [seed(category, category) for category in CATEGORIES]
    judged = PairRules(some)
    reasons = {judged.pair(first, second) for first, second in itertools.product(some, some)}
    assert reasons <= set(rules.REASONS)
    assert {OK, rules.NOT_BEFORE, rules.OTHER_KIND, rules.SAME_TASK} <= reasons


def test_rules_with_names_that_nobody_knows_are_refused() -> None:
    with pytest.raises(ValueError, match="no such kind: smell"):
        Rules(kinds={}, categories={"A": CategoryRule(takes=("smell",), gives="smell")}, aliases={})
    with pytest.raises(ValueError, match="no such category: B"):
        Rules(kinds={"a": ""}, categories={"A": CategoryRule(takes=("a",), gives="a")}, aliases={"C": "B"})
