import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coi_jax.chains.chain import Chain, Step, is_well_formed, join, parse, render
from coi_jax.common.errors import UserError

PIECES = [
    "Task 1 output:",
    "Task2 output:",
    "task 2 output and task 3 input:",
    " and then ",
    "\n",
    "\\",
    " ",
    "a",
    "é",
    "7",
]
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))
OUTPUTS = st.lists(TEXTS, min_size=1, max_size=6).map(tuple)


@given(OUTPUTS)
@example(("", ""))
@example(("Task 2 output:", "\\Task 2 output: x", "\\\\Task 1 output and task 2 input:"))
@example(("ends in a backslash\\", "\nnewlines\n"))
def test_parse_undoes_render(outputs: tuple[str, ...]) -> None:
    assert parse(render(outputs)) == outputs


@given(OUTPUTS)
def test_what_render_writes_is_well_formed(outputs: tuple[str, ...]) -> None:
    text = render(outputs)
    assert [n for n in range(1, 8) if is_well_formed(text, n)] == [len(outputs)]


SPELLINGS = [
    "Task 1 output and task 2 input: A\nTask 2 output: B",
    "Task 1 output and task 2 input: A Task 2 output: B",
    "Task 1 output and task 2 input: A  Task2 output: B",
    "Task 1 output and task 2 input: A \nTask2 output: B\n",
    "Task 1 output and task 2 input:\nA\n\nTask 2 output:\nB",
    "task 1 output and task 2 input: A. task 2 output: B",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_of_two_steps(text: str) -> None:
    assert [output.rstrip(".") for output in parse(text)] == ["A", "B"]
    assert is_well_formed(text, 2)
    assert not is_well_formed(text, 3)


def test_three_steps() -> None:
    text = "Task 1 output and task 2 input: A  Task 2 output and task 3 input: B  Task 3 output: C"
    assert parse(text) == ("A", "B", "C")
    assert is_well_formed(text, 3)


def test_a_text_without_labels_is_one_output() -> None:
    assert parse(" only this\n") == (" only this\n",)


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("Task 1 output and task 2 input: A Task 3 output: C", ("A Task 3 output: C",)),
        ("Task 2 output: B", ("Task 2 output: B",)),
        ("Task 1 output: A Task 2 output: B Task 2 output: C", ("A", "B Task 2 output: C")),
        ("Sure! Task 1 output and task 2 input: A Task 2 output: B", ("A", "B")),
    ],
)
def test_what_a_model_may_write(text: str, outputs: tuple[str, ...]) -> None:
    assert parse(text) == outputs
    assert not is_well_formed(text, 2)


CHAIN = Chain(
    "7", "made", "b a", "Sort. and then Count.", (Step("Sort.", "a b", "order", "sort"), Step("Count.", None))
)


def test_row_and_back() -> None:
    assert Chain.from_row(CHAIN.row()) == CHAIN
    assert CHAIN.length == 2
    assert CHAIN.instruction == join([step.instruction for step in CHAIN.steps])
    assert parse(CHAIN.targets) == ("a b", "")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"input": 3}, "input"),
        ({"steps": []}, "steps"),
        ({"steps": ["Sort."]}, "steps"),
        ({"steps": [{"instruction": "Sort."}]}, "step"),
        ({"steps": [CHAIN.row()["steps"][0] | {"output": 1}]}, "output"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_row_is_named(change: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        Chain.from_row(CHAIN.row() | change)
