import itertools
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coi_jax.chains.chain import JOINER, join, render
from data_pipeline.release.release_files import FILES, ReleaseFile
from data_pipeline.release.row_reading import NOT_GIVEN, NotAChain, Survey, group, read, split_output

WORDS = st.text("abc .", min_size=1).filter(str.strip)
BY_SOURCE = {file.source: file for file in FILES}
COI_2, COI_3, COI_123 = BY_SOURCE["coi_2.json"], BY_SOURCE["coi_3.json"], BY_SOURCE["coi_123.json"]


def make(instruction: str, outputs: list[str], input: str = "in", **more: Any) -> dict[str, Any]:
    return {"instruction": instruction, "input": input, "output": render(outputs), **more}


def survey_of(*rows: dict[str, Any]) -> Survey:
    survey = Survey()
    for row in rows:
        survey.learn(row)
    survey.settle()
    return survey


def instructions(row: dict[str, Any], file: ReleaseFile, *others: dict[str, Any]) -> list[str]:
    reading = read(row, file, 0, survey_of(*others))
    return [step.instruction for step in reading.chain.steps]


@given(st.lists(st.tuples(WORDS, st.text()), min_size=2, max_size=3))
def test_a_regular_row_gives_its_instructions_and_outputs(steps: list[tuple[str, str]]) -> None:
    told = [instruction.strip() for instruction, _ in steps]
    reading = read(make(join(told), [output for _, output in steps]), COI_123, 7, Survey())
    assert reading.note is None
    assert reading.chain.id == "coi_123.json#7"
    assert reading.chain.instruction == join(told)
    assert [step.instruction for step in reading.chain.steps] == told
    assert reading.chain.outputs == tuple(output.strip() for _, output in steps)


@pytest.mark.parametrize(
    "output",
    [
        "Task 1 output and task 2 input: seven \nTask 2 output: odd",
        "Task 1 output and task 2 input: seven\nTask2 output: odd",
        "Task 1 output and task 2 input: seven  Task 2 output: odd",
    ],
)
def test_spellings_of_the_release(output: str) -> None:
    assert split_output(output) == ("seven", "odd")


def test_a_single_output_is_kept_as_it_is() -> None:
    row = {"instruction": "Join the names and then sign.", "input": "", "output": " Ann \n"}
    chain = read(row, COI_123, 0, Survey()).chain
    assert (chain.length, chain.steps[0].instruction, chain.outputs) == (1, row["instruction"], (" Ann \n",))


@given(st.lists(WORDS.map(str.strip), min_size=2, max_size=6), st.data())
def test_grouping_keeps_every_part_in_order(parts: list[str], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(parts)))
    known = data.draw(st.lists(st.sampled_from(parts)))
    survey = Survey()
    survey.instructions.update(known)
    groups = group(parts, count, survey)
    assert len(groups) == count
    assert JOINER.join(groups) == JOINER.join(parts)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=7), st.data())
def test_grouping_takes_the_best_of_all_ways(parts: list[str], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(parts)))
    survey = Survey()
    survey.instructions.update(
        JOINER.join(words) for words in data.draw(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=2)))
    )
    ends = itertools.combinations(range(1, len(parts)), count - 1)
    edges = ((0, *inner, len(parts)) for inner in ends)
    ways = [tuple(JOINER.join(parts[one:next]) for one, next in itertools.pairwise(edge)) for edge in edges]

    def merit(instructions: tuple[str, ...]) -> tuple[int, int]:
        seen = [survey.instructions[instruction] for instruction in instructions]
        return sum(map(bool, seen)), sum(seen)

    assert group(parts, count, survey) == max(ways, key=merit)  # `max` keeps the first, with the earliest ends


def test_an_instruction_of_thousands_of_joiners_is_grouped_at_once() -> None:
    row = make(JOINER.join(["Sort."] * 20_000), ["a", "b", "c"])
    start = time.process_time()
    shown = instructions(row, COI_3, make("Sort. and then Count. and then Add.", ["a", "b", "d"]))
    assert time.process_time() - start < 1
    assert shown == ["Sort.", "Sort.", JOINER.join(["Sort."] * 19_998)]


def test_grouping_without_knowledge_leaves_the_rest_to_the_last_step() -> None:
    assert group(("a", "b", "c", "d"), 3, Survey()) == ("a", "b", "c and then d")


def test_grouping_prefers_known_instructions() -> None:
    survey = Survey()
    survey.instructions.update(["Wash it and then dry it.", "Sell it."])
    assert group(("Wash it", "dry it.", "Sell it."), 2, survey) == ("Wash it and then dry it.", "Sell it.")
    survey.instructions.update(["Wash it", "dry it.", "Wash it"])
    assert group(("Wash it", "dry it.", "Sell it."), 2, survey) == ("Wash it and then dry it.", "Sell it.")


def test_an_instruction_that_holds_the_joiner_is_grouped_by_what_other_rows_say() -> None:
    teacher = make("Find the verb and then bend it. and then Count.", ["ran", "3"])
    row = make("Peel the fruit. and then Slice it and then Weigh it.", ["peeled", "5 g"])
    others = [make("Peel the fruit. and then Smell.", ["peeled", "sweet"]), teacher]
    assert instructions(row, COI_2, *others) == ["Peel the fruit.", "Slice it and then Weigh it."]
    assert "grouped" in (read(row, COI_2, 0, survey_of(*others)).note or "")


def test_a_fused_row_takes_the_instructions_of_the_row_with_its_outputs() -> None:
    explicit = make("Name the river. and then Spell it backwards.", ["Elbe", "eblE"])
    fused = make("Spell the river's name backwards.", ["Elbe", "eblE"])
    reading = read(fused, BY_SOURCE["summarized_coi_2.json"], 3, survey_of(explicit))
    assert reading.note is None
    assert reading.chain.instruction == fused["instruction"]
    assert [step.instruction for step in reading.chain.steps] == ["Name the river.", "Spell it backwards."]


def test_of_two_rows_with_the_same_outputs_the_nearest_words_win() -> None:
    far = make("Tag it. and then Guess.", ["x", "yes"])
    near = make("Name the river. and then Judge whether it is long.", ["x", "yes"])
    fused = make("Judge whether the river is long.", ["x", "yes"])
    file = BY_SOURCE["summarized_coi_2.json"]
    assert (
        instructions(fused, file, far, near)
        == instructions(fused, file, near, far)
        == near["instruction"].split(JOINER)
    )
    assert "2 chains" in (read(fused, file, 0, survey_of(far, near)).note or "")


def test_of_two_rows_with_the_same_outputs_the_place_in_the_file_wins() -> None:
    originals = [
        make("Write the next message. and then Say whether it is a correct answer.", ["No.", "No"]),
        make("Write the next message. and then Say whether the message answers the question.", ["No.", "No"]),
    ]
    copies = [
        make("Create a message that answers, then evaluate its correctness.", ["No.", "No"]),
        make("Create a message and tell if the question is answered.", ["No.", "No"]),
    ]
    file, survey = BY_SOURCE["summarized_coi_2.json"], Survey()
    for number, row in enumerate(originals):
        survey.learn(row, number)
    survey.settle()
    survey.locate(file.source, copies)
    for number, (row, original) in enumerate(zip(copies, originals, strict=True)):
        reading = read(row, file, number, survey)
        assert join([step.instruction for step in reading.chain.steps]) == original["instruction"]
        assert "its place in the file" in (reading.note or "")


def test_a_test_row_keeps_the_text_of_its_outputs_where_it_is_not_canonical() -> None:
    text = "Task 1 output and task 2 input: fig pear\nTask2 output: fig"
    row = {"instruction": "Sort the words. and then Keep the first word.", "input": "pear fig", "output": text}
    assert read(row, BY_SOURCE["coi2_test.json"], 0, Survey()).chain.published_targets == text
    assert read(row, COI_2, 0, Survey()).chain.published_targets is None
    canonical = row | {"output": render(["fig pear", "fig"])}
    assert read(canonical, BY_SOURCE["coi2_test.json"], 0, Survey()).chain.published_targets is None


def test_what_nobody_tells_is_not_given() -> None:
    fused = make("Name the river backwards.", ["Elbe", "eblE"])
    file = BY_SOURCE["summarized_coi_2.json"]
    assert instructions(fused, file) == [NOT_GIVEN, NOT_GIVEN]
    known = make("Name the river. and then Count its letters.", ["Elbe", "4"])
    assert instructions(fused, file, known) == ["Name the river.", NOT_GIVEN]
    assert instructions(fused, COI_2, known) == ["Name the river.", NOT_GIVEN]


def test_a_row_with_both_wordings_shows_the_fused_one() -> None:
    row = make("Cut. and then Dry. and then Pack.", ["a", "b", "c"], summarized_coi="Cut, dry and pack.")
    chain = read(row, BY_SOURCE["summarized_coi_3"], 0, Survey()).chain
    assert chain.instruction == "Cut, dry and pack."
    assert [step.instruction for step in chain.steps] == ["Cut.", "Dry.", "Pack."]


def test_a_summary_is_step_one_and_its_translation_step_two() -> None:
    row = {
        "instruction": "Sum up and then translate",
        "input": "Es regnet seit Tagen.",
        "eng_output": "Es regnet.",
        "output": "It rains.",
    }
    chain = read(row, BY_SOURCE["spa2eng_summarize_then_translate200.json.json"], 0, Survey()).chain
    assert chain.outputs == ("Es regnet.", "It rains.")
    assert [step.instruction for step in chain.steps] == ["Sum up", "translate"]


def test_a_bbh_row_is_one_step_named_after_its_file() -> None:
    row = {"instruction": "Say yes and then no.", "input": "?", "output": "no"}
    chain = read(row, BY_SOURCE["bigbenchhard/test_snarks"], 0, Survey()).chain
    assert [(step.instruction, step.output, step.task) for step in chain.steps] == [
        (row["instruction"], "no", "test_snarks")
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([], "not a JSON object"),
        (None, "not a JSON object"),
        ({"instruction": "a", "input": "b"}, "no key 'output'"),
        (make("Go.", ["a", "b"]) | {"input": 3}, "'input' is not a string"),
        (make("Go. and then Stop.", ["a", "b"], summarized_coi=None), "'summarized_coi' is not a string"),
        (make(" ", ["a", "b"]), "empty instruction"),
        (make("Go.", ["a"]), "1 outputs where 2 are due"),
        (make("Go.", ["a", "b", "c"]), "3 outputs where 2 are due"),
    ],
)
def test_what_is_not_a_chain_has_a_reason(row: Any, reason: str) -> None:
    with pytest.raises(NotAChain, match=reason):
        read(row, COI_2, 0, Survey())


@given(st.permutations(["One.", "Two.", "Three."]))
def test_a_survey_does_not_depend_on_the_order_of_rows(order: list[str]) -> None:
    rows = [make(f"{a} and then {b}", [a, b]) for a, b in pairwise(["One.", "Two.", "Three.", "One."])]
    rows += [make("One. and then Two and then Three.", ["x", "y"])]
    arranged = sorted(rows, key=lambda row: order.index(row["instruction"].split(JOINER)[0]))
    assert survey_of(*arranged).chains("in", ("x", "y")) == survey_of(*rows).chains("in", ("x", "y"))
