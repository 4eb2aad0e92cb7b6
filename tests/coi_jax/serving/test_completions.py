"""The server asked by OpenAI's own client; answers are those of the offline engine."""

import concurrent.futures
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from coi_jax.inference import engine
from coi_jax.inference.answering import generate
from coi_jax.inference.model import Model, load_to_ask
from coi_jax.runs import checkpoint
from tests.helpers.servers import LIMITS, Server, running_server
from tests.helpers.tiny_models import T5
from tests.helpers.trained_runs import make_run

LIMIT = 12
GREEDY: dict[str, Any] = {"evaluation.decoding": "greedy", "evaluation.max_new_tokens": LIMIT}
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
    # More room than an answer offline has, for the steps that are given.
    with running_server(run, limits=dataclasses.replace(LIMITS, new_tokens=80), **GREEDY) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return server.client()


def ask(client: openai.OpenAI, input: str, **settings: Any) -> Any:
    coi = {"instructions": STEPS, "input": input}
    given = {"max_tokens": LIMIT} | settings
    return client.chat.completions.create(model="run", messages=[], extra_body={"coi": coi}, **given)


def test_a_chain_is_answered_as_offline(client: openai.OpenAI, offline: Model) -> None:
    expected = generate(offline, " and then ".join(STEPS), "b a")
    reply = ask(client, "b a")
    [choice] = reply.choices
    assert choice.message.content == expected["text"]
    assert choice.coi == {key: expected[key] for key in ("steps", "complete", "well_formed", "checkpoint")}
    assert choice.finish_reason == ("stop" if expected["complete"] else "length")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.completion_tokens == LIMIT


def test_a_t5_answers_as_offline(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"model": T5, "data.targets_length": 64}
    run = make_run(tmp_path, **fields).path
    model, coi = load_to_ask(run, GREEDY | {"evaluation.batch": 1}), {"instructions": STEPS, "input": "b a"}
    with running_server(run, limits=dataclasses.replace(LIMITS, new_tokens=80), **GREEDY) as server:
        client = server.client()
        assert ask(client, "b a").choices[0].message.content == generate(model, " and then ".join(STEPS), "b a")["text"]
        reply: Any = client.chat.completions.create(
            messages=[], model="run", extra_body={"coi": coi | {"outputs": ["a"]}}
        )
        assert reply.choices[0].message.content.startswith("Task 1 out")


def test_a_t5_reads_prompts_of_all_lengths_with_programs_that_are_there(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"model": T5, "data.targets_length": 64}
    with running_server(make_run(tmp_path, **fields).path, **GREEDY) as server:
        compiled = engine.insert._cache_size()  # type: ignore[attr-defined]
        for length in (1, 60, 120, 200):
            server.client().completions.create(model="run", prompt="a" * length, max_tokens=2)
        assert engine.insert._cache_size() == compiled  # type: ignore[attr-defined]


def test_answers_in_flight_together_are_those_of_each_alone(client: openai.OpenAI, offline: Model) -> None:
    inputs = [f"w{n} v{n} u{n}" for n in range(12)]  # four times the slots
    expected = [generate(offline, " and then ".join(STEPS), input)["text"] for input in inputs]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda input: ask(client, input), inputs))
    assert [reply.choices[0].message.content for reply in replies] == expected


def test_a_stream_is_the_whole_answer_in_parts(client: openai.OpenAI) -> None:
    whole = ask(client, "b a").choices[0]
    parts = list(ask(client, "b a", stream=True, stream_options={"include_usage": True}))
    *parts, last = parts
    assert last.choices == []
    assert last.usage.completion_tokens == LIMIT
    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(part.choices[0].delta.content for part in parts) == whole.message.content
    assert parts[-1].choices[0].finish_reason == whole.finish_reason
    assert parts[-1].choices[0].coi == whole.coi


def test_kept_steps_stand_at_the_beginning_of_the_answer(client: openai.OpenAI) -> None:
    coi = {"instructions": STEPS, "input": "b a", "outputs": ["a b"]}
    reply: Any = client.chat.completions.create(model="run", messages=[], max_tokens=3, extra_body={"coi": coi})
    [choice] = reply.choices
    assert choice.message.content.startswith("Task 1 output and task 2 input: a b\nTask 2 output:")
    assert choice.coi["steps"][0] == {"instruction": STEPS[0], "output": "a b"}
    assert reply.usage.completion_tokens == 3


def test_sampled_answers_follow_from_the_seed(client: openai.OpenAI) -> None:
    def drawn(seed: int | None) -> list[str]:
        reply = ask(client, "b a", n=3, temperature=1.3, top_p=0.9, **({} if seed is None else {"seed": seed}))
        return [choice.message.content for choice in reply.choices]

    assert drawn(7) == drawn(7)
    assert len({*drawn(7), *drawn(8)}) == 6  # each answer draws on its own
    assert drawn(None) != drawn(None)


def test_a_stop_text_ends_an_answer_before_it(client: openai.OpenAI) -> None:
    text = ask(client, "b a").choices[0].message.content
    place = next(place for place in range(3, len(text)) if text.find(text[place : place + 2]) == place)
    stop = text[place : place + 2]
    cut = ask(client, "b a", stop=["never said", stop]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (text[:place], "stop")
    parts = list(ask(client, "b a", stop=stop, stream=True))
    assert "".join(part.choices[0].delta.content for part in parts) == text[:place]


def test_log_probabilities_belong_to_the_tokens(client: openai.OpenAI) -> None:
    choice = ask(client, "b a", logprobs=True, top_logprobs=2).choices[0]
    told = choice.logprobs.content
    assert len(told) == LIMIT
    for one in told:  # greedy decoding takes the likeliest
        assert one.logprob == one.top_logprobs[0].logprob >= one.top_logprobs[1].logprob
    parts = list(ask(client, "b a", logprobs=True, top_logprobs=2, stream=True))
    streamed = [one for part in parts if part.choices[0].logprobs for one in part.choices[0].logprobs.content]
    assert [one.logprob for one in streamed] == [one.logprob for one in told]


def test_completions_show_prompts_as_they_are(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="run", prompt=["ab", "cd"], n=2, max_tokens=4, logprobs=1)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.choices[0].text == reply.choices[1].text != reply.choices[2].text
    assert reply.choices[0].logprobs is not None
    assert len(reply.choices[0].logprobs.tokens or []) == 4
    parts = list(client.completions.create(model="run", prompt="ab", max_tokens=4, stream=True))
    assert "".join(part.choices[0].text for part in parts) == reply.choices[0].text


def test_a_message_of_the_user_is_an_instruction(client: openai.OpenAI, offline: Model) -> None:
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Sort the words."}]}]
    reply = client.chat.completions.create(model="run", messages=messages, max_tokens=LIMIT)
    assert reply.choices[0].message.content == generate(offline, "Sort the words.", "")["text"]


def test_models_are_listed(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert model.id == "run"
    assert client.models.retrieve("run") == model
    with pytest.raises(openai.NotFoundError, match="one of run"):
        client.models.retrieve("other")


def test_logits_that_are_not_finite_fail_their_own_request_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restore, token = checkpoint.restore_params, load_to_ask(run, GREEDY).vocabulary.encode("b")[-1]

    def restore_diverged(*given: Any, **settings: Any) -> Any:
        params = restore(*given, **settings)
        table = params["embedding"]["table"].at[token].set(float("nan"))
        return params | {"embedding": params["embedding"] | {"table": table}}

    monkeypatch.setattr(checkpoint, "restore_params", restore_diverged)
    with running_server(run, limits=dataclasses.replace(LIMITS, new_tokens=4), **GREEDY) as server:
        client = server.client()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            good, bad = (pool.submit(client.completions.create, model="run", prompt=text) for text in ("c", "b"))
        assert good.result().choices[0].finish_reason in ("stop", "length")
        with pytest.raises(openai.InternalServerError, match="logits are not finite numbers; training diverged"):
            bad.result()
