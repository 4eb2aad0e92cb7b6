import json
from pathlib import Path

import pytest

from coi_jax.llm import Answered, Rejected, ask
from coi_jax.llm.calls import Reply, read_reply
from coi_jax.llm.structured import read, repair, response_format
from tests.helpers.llm_clients import Output, call, client
from tests.helpers.llm_server import running


def reply(text: str, finish_reason: str = "stop") -> Reply:
    return Reply(text, finish_reason, "", 10, 5)


@pytest.mark.parametrize(
    "text", ['{"output": "x"}', ' {"output": "x"}\n', '```json\n{"output": "x"}\n```', '```\n{"output": "x"}\n```']
)
def test_reads_json_alone_or_in_a_fence(text: str) -> None:
    assert read(reply(text), Output) == Output(output="x")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Sure!", "Invalid JSON"),
        ('{"output": 3}', "output: Input should be a valid string"),
        ("{}", "output: Field required"),
        ('{"output": "x", "more": 1}', "more: Extra inputs are not permitted"),
        ('["x"]', "Input should be an object"),
    ],
)
def test_says_in_one_line_what_is_wrong(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as raised:
        read(reply(text), Output)
    assert "\n" not in str(raised.value)


def test_a_reply_that_was_cut_is_none() -> None:
    with pytest.raises(ValueError, match="cut short"):
        read(reply('{"output": "x"}', "length"), Output)


def test_a_repair_shows_the_model_what_it_wrote_and_what_is_wrong() -> None:
    again = repair(call("a"), reply("Sure!"), "Invalid JSON")
    assert again.messages[:2] == call("a").messages
    assert again.messages[2].content == "Sure!"
    assert "Invalid JSON" in again.messages[3].content


@pytest.mark.parametrize("fault", ["prose", "schema"])
def test_is_repaired_once_and_then_rejected_with_what_was_written(tmp_path: Path, fault: str) -> None:
    with running(rates={fault: 1.0}) as server, client(server.url, tmp_path) as made:
        found = made.run(ask(made, call("a"), Output)).result()
        assert server.counts()["requests"] == 2
    assert isinstance(found, Rejected)
    assert found.reason.startswith("not of the wanted form: ")
    assert len(found.raw) == 2
    assert found.usage.calls == 2


def test_a_refusal_is_not_asked_again(tmp_path: Path) -> None:
    with running(rates={"refuse": 1.0}) as server, client(server.url, tmp_path) as made:
        found = made.run(ask(made, call("a"), Output)).result()
        assert server.counts()["requests"] == 1
    assert isinstance(found, Rejected)
    assert found.reason == "refused"
    assert found.raw == ("I cannot help with that.",)


def test_a_good_reply_needs_no_repair(tmp_path: Path) -> None:
    with running() as server, client(server.url, tmp_path) as made:
        found = made.run(ask(made, call("a"), Output)).result()
    assert isinstance(found, Answered)
    assert found == Answered(Output(output="an answer to 2 turns"), (call("a").key,), found.usage)


def test_schemas_are_closed() -> None:
    form = response_format("json_schema", Output)
    assert form
    assert form["json_schema"]["strict"]
    assert form["json_schema"]["schema"]["additionalProperties"] is False
    assert response_format("json_object", Output) == {"type": "json_object"}
    assert response_format("text", Output) is None


@pytest.mark.parametrize("body", [None, [], {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": 3}]}])
def test_what_is_no_chat_completion_is_none(body: object) -> None:
    with pytest.raises(ValueError, match="not a chat completion"):
        read_reply(json.loads(json.dumps(body)))
