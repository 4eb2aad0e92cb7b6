import json
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coi_jax.llm.fencing import fence
from data_pipeline.build.asking import questions
from data_pipeline.build.asking.questions import PROMPTS, Question, messages, prompt
from data_pipeline.build.llm_stages import LLM_STAGES
from data_pipeline.build.stages.answers import Answer
from data_pipeline.build.stages.checks import Check
from tests.helpers.fake_llm import FENCED, question
from tests.helpers.llm_clients import config
from tests.helpers.super_ni_tasks import INJECTION

QUESTIONS = [stage.question_class for stage in LLM_STAGES]
kinds = pytest.mark.parametrize("kind", QUESTIONS, ids=lambda kind: kind.prompt)


@kinds
def test_examples_are_of_the_form_that_is_asked_for(kind: type[Question]) -> None:
    words = prompt(kind.prompt)
    assert len(words.examples) >= 2
    for example in words.examples:
        assert kind.form.model_validate_json(example.reply)
        assert set(example.fields) == fields(words.template)


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@kinds
def test_schemas_are_closed_and_every_field_is_required(kind: type[Question]) -> None:
    schema = kind.form.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(schema["properties"])


def test_every_prompt_file_is_used() -> None:
    assert {path.stem for path in PROMPTS.glob("*.toml")} == {kind.prompt for kind in QUESTIONS}


@kinds
def test_every_prompt_shows_a_row_that_gives_orders_or_says_what_fences_are(kind: type[Question]) -> None:
    assert "never" in prompt(kind.prompt).system
    assert "<<" in prompt(kind.prompt).system


@given(st.text(), st.text())
def test_no_text_ends_its_fence(before: str, after: str) -> None:
    inner = fence("input", before)
    for text in (before, inner, f"{before}\n{inner.splitlines()[-1]}\n{after}", f"{before} input>>{after}"):
        found = fence("input", text)
        mark = found[len("<<input ") :][:12]
        assert found.count(f"{mark} input>>") == 1
        assert found == f"<<input {mark}\n{text}\n{mark} input>>"


@given(st.text(min_size=1).filter(lambda text: "\r" not in text), st.text(min_size=1))
def test_braces_and_marks_of_the_data_stay_what_they_are(given_: str, instruction: str) -> None:
    asked = messages(Answer("a definition {x}", instruction, given_ + "{0} {input}"))[-1].content
    assert given_ + "{0} {input}" in asked
    assert instruction in asked


def test_orders_in_the_data_stand_within_fences_alone() -> None:
    asked = messages(Check(INJECTION, INJECTION, INJECTION, INJECTION))[-1].content
    outside = FENCED.sub("", asked)
    assert INJECTION not in outside
    assert len(re.findall(re.escape(INJECTION), asked)) == 4


def test_a_call_holds_the_schema_and_the_question_can_be_read_from_it() -> None:
    made = questions.call(Answer("d", "i", "x"), config("u"))
    name, found = question(json.loads(json.dumps(made.body)))
    assert (name, found) == ("answer", {"definition": "d", "instruction": "i", "input": "x"})
    assert made.body["response_format"]["json_schema"]["strict"]
    assert made.max_tokens == prompt("answer").max_tokens


def test_a_call_holds_the_parameters_of_the_config_and_what_is_unset_changes_no_address() -> None:
    asked, default = Answer("d", "i", "x"), config("u")
    changed = config(
        "u",
        temperature=None,
        token_limit_field="max_completion_tokens",
        reply_tokens=9000,
        reasoning_effort="low",
        extra_body={"seed": 1},
    )
    body = questions.call(asked, changed).body
    assert {"temperature", "max_tokens"} & set(body) == set()
    assert (body["max_completion_tokens"], body["reasoning_effort"], body["seed"]) == (9000, "low", 1)
    assert set(questions.call(asked, default).body) == {
        "model",
        "messages",
        "temperature",
        "max_tokens",
        "response_format",
    }
    assert default.identity == ["endpoint", "m", 0.0, "json_schema"]
    assert changed.identity != default.identity


@pytest.mark.parametrize("name", ["stream", "n", "max_tokens", "messages"])
def test_fields_that_change_what_is_paid_are_not_extra(name: str) -> None:
    with pytest.raises(ValueError, match=f"extra_body.*\n.*{name}"):
        config("u", extra_body={name: 1})
