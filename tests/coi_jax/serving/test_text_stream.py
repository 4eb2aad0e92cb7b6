import pytest

from coi_jax.serving.replies import StepsTold, outputs_so_far
from coi_jax.serving.text_stream import TextStream
from coi_jax.tokenizers.vocabulary import ByteVocabulary

VOCABULARY = ByteVocabulary()


def parts_of(text: str, *stops: str, size: int = 1) -> tuple[list[str], TextStream]:
    """The parts of a text whose tokens come a few at a time."""
    tokens, stream = VOCABULARY.encode(text), TextStream(VOCABULARY, stops)
    ends = [*range(size, len(tokens), size), len(tokens)]
    return [stream.grow(tokens[:end], is_last=end == len(tokens)) for end in ends], stream


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_parts_make_the_whole_and_hold_no_half_character(size: int) -> None:
    text = "naïve 日本語 \U0001f600 end"
    parts, stream = parts_of(text, size=size)
    assert "".join(parts) == stream.text == text
    assert not any("\ufffd" in part for part in parts)


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("three", "two"), "one "),
        ("one two three", ("four", "twice"), "one two three"),
        ("one\n\ntwo", ("\n\n",), "one"),
        ("aab", ("ab",), "a"),
        ("one tw", ("two",), "one tw"),
    ],
)
def test_nothing_of_a_stop_text_is_ever_shown(text: str, stops: tuple[str, ...], expected: str) -> None:
    parts, stream = parts_of(text, *stops)
    assert "".join(parts) == stream.text == expected
    assert stream.stopped == (expected != text)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_tokens_after_a_stop_text_do_not_count(size: int) -> None:
    """How many were written until somebody looked is chance."""
    _, stream = parts_of("one two three", "two", size=size)
    assert stream.used == len("one two")
    assert parts_of("one two three", size=size)[1].used == len("one two three")


def test_a_half_character_at_the_end_is_shown_as_it_is() -> None:
    tokens, stream = VOCABULARY.encode("日")[:2], TextStream(VOCABULARY)
    assert stream.grow(tokens, is_last=False) == ""
    assert "\ufffd" in stream.grow(tokens, is_last=True)


def test_steps_grow_one_after_another_without_their_labels() -> None:
    text = "Task 1 output and task 2 input: a b\nTask 2 output: Two Tasks"
    told, seen = StepsTold(2), []
    for end in range(len(text) + 1):
        seen += told.news(text[:end])["steps"]
    outputs = {step: [one["output"] for one in seen if one["step"] == step] for step in (1, 2)}
    assert outputs[1][-1] == "a b"
    assert not any("ask" in output for output in outputs[1])
    assert outputs[2][-1] == "Two Tasks"
    assert outputs_so_far("Task 1 output and task 2 input: a Task 2", 2) == ("a",)  # it may become a label


def test_a_single_step_has_no_label() -> None:
    assert outputs_so_far("a b", 1) == ("a b",)
