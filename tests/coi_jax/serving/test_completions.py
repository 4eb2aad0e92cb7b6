"""The server asked by OpenAI's own client; answers are those of the offline engine."""

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from coi_jax.inference.answering import generate
from coi_jax.inference.model import Model, load_to_ask
from tests.helpers.servers import Server, running_server
from tests.helpers.trained_runs import make_run

GREEDY = {"evaluation.decoding": "greedy", "evaluation.max_new_tokens": 12}
STEPS = ["Sort the words.", "Count them."]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = make_run(tmp_path_factory.mktemp("made")).path
    return path


@pytest.fixture(scope="module")
def offline(run: Path) -> Model:
    return load_to_ask(run, GREEDY | {"evaluation.batch": 1})


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Server]:
    with running_server(run, **GREEDY) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return server.client()


def ask(client: openai.OpenAI, input: str, **settings: Any) -> Any:
    coi = {"instructions": STEPS, "input": input}
    return client.chat.completions.create(model="run", messages=[], extra_body={"coi": coi}, **settings)


def test_a_chain_is_answered_as_offline(client: openai.OpenAI, offline: Model) -> None:
    expected = generate(offline, " and then ".join(STEPS), "b a")
    reply = ask(client, "b a")
    [choice] = reply.choices
    assert choice.message.content == expected["text"]
    assert choice.coi == {key: expected[key] for key in ("steps", "complete", "well_formed", "checkpoint")}
    assert choice.finish_reason == ("stop" if expected["complete"] else "length")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.completion_tokens == 12
