from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coi_jax.chains.chain import Chain, Step, is_well_formed, join, parse, render, respell_labels
from coi_jax.common.errors import UserError
from tests.helpers.measured import assert_megabyte_takes_little

PIECES = [
    "Task 1 output:",
    "Task2 output:",
    "task 2 output and task 3 input:",
    "**Task 1 output:**",
    "Task 1 output**:",
    "\n- ",
    "*",
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
    "**Task 1 output and task 2 input:** A\n**Task 2 output:** B",
    "**Task 1 output and task 2 input**: A\n\n__Task 2 output__: B",
    "### Task 1 output and task 2 input:\nA\n\n### Task 2 output:\nB",
    "- *Task 1 output and task 2 input:* A\n- *Task 2 output:* B",
    "1. Task 1 output and task 2 input: A\n2. Task 2 output: B",
    "**Task 1 output and task 2 input: A**\n\n- __Task 2 output: B__",
    "> `Task 1 output and task 2 input`: A\n> `Task 2 output`: B",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_of_two_steps(text: str) -> None:
    assert [output.rstrip(".") for output in parse(text)] == ["A", "B"]
    assert is_well_formed(text, 2)
    assert not is_well_formed(text, 3)


def test_marks_that_enclose_no_label_are_content() -> None:
    assert parse("Task 1 output and task 2 input: 5 *Task 2 output: **b**") == ("5 *", "**b**")


def test_labels_are_spelled_as_those_of_another_text() -> None:
    text = "Well. Task 1 output and task 2 input: A\nTask 2 output: B"
    assert respell_labels(text, "task1 output and task2 input: C Task2 output: D") == (
        "Well. task1 output and task2 input: A\nTask2 output: B"
    )
    assert respell_labels(text, "Task1 output: C Task2 output: D") == text.replace("Task 2 output:", "Task2 output:")
    assert respell_labels("B", "Task1 output: C Task2 output: D") == "B"


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


@given(backslashes=st.integers(0, 4), ending=st.sampled_from(["", "\\", " x"]), digits=st.integers(1, 3))
def test_a_label_in_an_output_is_escaped_whatever_stands_before_it(backslashes: int, ending: str, digits: int) -> None:
    content = "\\" * backslashes + f"Task {'0' * digits}2 output:" + ending
    assert parse(render((content, content))) == (content, content)


def test_leading_zeros_do_not_change_the_number_of_a_label() -> None:
    assert parse("Task 01 output and task 2 input: A Task 002 output: B") == ("A", "B")


def test_a_megabyte_is_parsed_and_rendered_soon_and_in_little_memory() -> None:
    code = """
from coi_jax.chains.chain import is_well_formed, parse, render
def run(text):
    assert parse(render((text, "b"))) == (text, "b")
    parse(text)
    is_well_formed(text, 2)
"""
    texts = [
        "\\" * 2**20,
        "\\a" * 2**19,
        f"Task {'1' * 2**20} output: a",
        f"Task 1 output and task {'2' * 2**20} input: a",
        "Task " * 2**18,
        "task 1 output and task 2 input: " * 2**15,
        "Task 1 output" * 2**16,
        "\n" * 2**20,
    ]
    assert_megabyte_takes_little(code, "ValueError", texts)


CHAIN = Chain(
    "7", "made", "b a", "Sort. and then Count.", (Step("Sort.", "a b", "order", "sort"), Step("Count.", None))
)


def test_row_and_back() -> None:
    assert Chain.from_row(CHAIN.row()) == CHAIN
    assert CHAIN.length == 2
    assert CHAIN.instruction == join([step.instruction for step in CHAIN.steps])
    assert parse(CHAIN.targets) == ("a b", "")
    assert "published_targets" not in CHAIN.row()
    published = replace(CHAIN, published_targets="Task1 output: a b")
    assert Chain.from_row(published.row()) == published
    detailed = replace(CHAIN, details={"kwargs": [{"num_words": 3}]})
    assert Chain.from_row(detailed.row()) == detailed
    assert "details" not in CHAIN.row()
    assert hash(detailed) == hash(CHAIN)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"input": 3}, "input"),
        ({"steps": []}, "steps"),
        ({"steps": ["Sort."]}, "steps"),
        ({"steps": [{"instruction": "Sort."}]}, "step"),
        ({"steps": [CHAIN.row()["steps"][0] | {"output": 1}]}, "output"),
        ({"colour": "red"}, "colour"),
        ({"published_targets": None}, "published_targets"),
        ({"details": ["a"]}, "details of a row.*an object"),
    ],
)
def test_a_wrong_row_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Chain.from_row(CHAIN.row() | change)
