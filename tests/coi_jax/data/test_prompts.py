import json
import random
from dataclasses import replace

import pytest

from coi_jax.chains.chain import Chain, Step
from coi_jax.common.errors import UserError
from coi_jax.data.prompts import (
    CHATS,
    choose_examples,
    cut_prompt,
    encode_prompt,
    few_shot,
    has_steps,
    list_steps,
    prompt,
    read_steps,
)
from coi_jax.tokenizers.vocabulary import ByteVocabulary


def chain(name: str, output: str | None = "B") -> Chain:
    return Chain(name, "made", f"in {name}", "Do. and then Do.", (Step("Do.", "A"), Step("Do.", output)))


CHAINS = [chain(str(number)) for number in range(20)]


@pytest.mark.parametrize("template", ["plain", "alpaca"])
def test_a_prompt_holds_instruction_and_input_in_order(template: str) -> None:
    text = prompt("Sort {these} words.", "b {a}", template)
    assert text.index("Sort {these} words.") < text.index("b {a}")


def test_alpaca_has_a_layout_without_input() -> None:
    assert "### Input" in prompt("Do.", "x", "alpaca")
    assert "### Input" not in prompt("Do.", "", "alpaca")


def test_examples_do_not_depend_on_order_and_are_complete() -> None:
    shuffled = random.Random(0).sample([*CHAINS, chain("open", None)], 21)
    assert choose_examples(shuffled) == choose_examples(CHAINS)
    assert len(choose_examples(CHAINS)) == 7
    assert choose_examples([chain("open", None)]) == []


def test_direct_prompting_shows_no_examples() -> None:
    assert few_shot(CHAINS[0], CHAINS[1:3], "plain", "direct") == prompt(CHAINS[0].instruction, "in 0", "plain")


def test_worked_examples_come_first_with_their_answers() -> None:
    text = few_shot(CHAINS[0], CHAINS[1:3], "plain", "cot")
    assert text.index("in 1") < text.index("in 2") < text.index("in 0")
    assert text.count(CHAINS[1].targets) == 2
    assert text.endswith(prompt(CHAINS[0].instruction, CHAINS[0].input, "plain"))


def test_least_to_most_asks_for_the_steps_and_then_for_the_answer() -> None:
    first = few_shot(CHAINS[0], CHAINS[1:3], "plain", "ltm")
    assert first.count("1. Do.\n2. Do.") == 2
    assert CHAINS[1].targets not in first
    assert first.count("as a numbered list, without carrying them out: Do. and then Do.\nin ") == 3
    assert first.endswith("Do. and then Do.\nin 0\n")
    second = few_shot(CHAINS[0], CHAINS[1:3], "plain", "ltm", outputs=["Steps:\n1. Read.\n2. Write.\n\nOther text"])
    steps = "Do. and then Do.\n\nCarry out these steps, one after another:\n1. "
    assert second.count(f"{steps}Do.\n2. Do.\nin ") == second.count(f"\n {CHAINS[1].targets}\n\n") == 2
    assert second.endswith(f"{steps}Read.\n2. Write.\nin 0\n")
    alone = few_shot(CHAINS[0], CHAINS[1:3], "plain", "ltm", outputs=["I cannot."])
    assert alone.endswith(f"{steps}Do. and then Do.\nin 0\n")


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1. Sort.\n2. Count.", ["Sort.", "Count."]),
        ("Steps:\n\n1) Sort.\n\n2) Count. \n", ["Sort.", "Count."]),
        ("**Step 1:** Sort.\n**Step 2:** Count.", ["Sort.", "Count."]),
        ("- 1. Sort.\n- 2. Count.\n3: Sum.", ["Sort.", "Count.", "Sum."]),
        ("1. Sort.\n2. Count.\n\nNext task\n1. Other.", ["Sort.", "Count."]),
        ("1. Sort.\n3. Count.", ["Sort."]),
        ("1. Sort.\nthem well\n2. Count.", ["Sort."]),
        ("2. Count.", []),
        ("1.5 apples", []),
        ("1. Sort. 2. Count them, 3) Sum.", ["Sort.", "Count them,", "Sum."]),
        ("Steps: 1. Sort. 2. Count.", ["Sort.", "Count."]),
        ("1. Multiply by 2. Then halve.", ["Multiply by 2. Then halve."]),
        ("1.\n2.", []),
        ("", []),
    ],
)
def test_steps_are_read_from_the_first_numbered_list(text: str, steps: list[str]) -> None:
    assert read_steps(text) == steps
    assert has_steps(text) == bool(steps)


def test_the_steps_of_worked_examples_are_read_as_they_are_written() -> None:
    steps = (Step("Sort:\n- a\n- b", "A"), Step("2. Count  them.", "B"))
    listed = list_steps(Chain("a", "made", "x", "", steps))
    assert read_steps(listed) == ["Sort: - a - b", "2. Count them."]


@pytest.mark.parametrize("template", CHATS)
def test_a_system_prompt_begins_a_conversation(template: str) -> None:
    turn = {"role": "system", "content": "Be brief."}
    assert json.loads(prompt("Do.", "x", template, "Be brief."))[0] == turn
    for prompting in ("direct", "cot"):
        with_system = json.loads(few_shot(CHAINS[0], CHAINS[1:3], template, prompting, "Be brief."))
        without = json.loads(few_shot(CHAINS[0], CHAINS[1:3], template, prompting))
        assert with_system == [turn, *without]


@pytest.mark.parametrize("room", [40, 41, 60])
def test_a_prompt_is_cut_inside_its_template(room: int) -> None:
    long = Chain("a", "made", "é pear " * 20, "Sort.", (Step("Sort.", "A"),))
    words = ByteVocabulary()
    ids = cut_prompt(long, "plain", words, None, room)
    assert ids is not None
    assert len(ids) in (room, room - 1)  # a letter of two bytes may not be cut in two
    kept = words.decode(ids).removeprefix("Sort.\n").removesuffix("\n")
    assert long.input.startswith(kept)
    assert cut_prompt(long, "plain", words, None, len("Sort.\né\n".encode()) - 1) is None
    assert cut_prompt(replace(long, input=""), "plain", words, None, 3) is None


@pytest.mark.parametrize("template", CHATS)
def test_in_a_conversation_examples_are_turns_that_came_before(template: str) -> None:
    direct = json.loads(few_shot(CHAINS[0], CHAINS[1:3], template, "direct"))
    assert (
        direct
        == [{"role": "user", "content": "Do. and then Do.\n\nin 0"}]
        == json.loads(prompt("Do. and then Do.", "in 0", template))
    )
    assert json.loads(prompt('say "é"', "", template)) == [{"role": "user", "content": 'say "é"'}]
    steps = "1. Do.\n2. Do."
    for prompting, outputs in (("cot", ()), ("ltm", ()), ("ltm", (steps,))):
        turns = json.loads(few_shot(CHAINS[0], CHAINS[1:3], template, prompting, outputs=outputs))
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
        assert (turns[-1:] == direct) == (prompting == "cot")
        is_first = prompting == "ltm" and not outputs
        assert turns[1]["content"] == (steps if is_first else CHAINS[1].targets)
        assert [steps in turn["content"] for turn in turns[::2]] == [bool(outputs)] * 3


def test_ids_of_a_prompt_end_where_the_model_reads_an_end() -> None:
    vocabulary = ByteVocabulary()
    assert encode_prompt("ab", "plain", vocabulary) == vocabulary.encode("ab")
    vocabulary.add_eos_to_inputs = True
    assert encode_prompt("ab", "plain", vocabulary) == [*vocabulary.encode("ab"), 1]
    with pytest.raises(UserError, match="the vocabulary bytes lays out no conversations"):
        encode_prompt(prompt("Do.", "", "chat"), "chat", vocabulary)
