"""Rows that are decoded each in its own way, as requests to a server are."""

import dataclasses

import jax
import numpy as np
import pytest

from coi_jax.inference.decoding import SingleStrategy
from coi_jax.inference.generator import Generator
from coi_jax.inference.request_decoding import Logprobs, RequestOptions, RequestStrategy
from coi_jax.inference.rows import Prompt, Rows
from coi_jax.models import Network, Params
from tests.helpers.continuations import EOS, Oracle, greedy
from tests.helpers.tiny_networks import CONFIGS, network_and_params, tokens

LIMIT = 10
LENGTHS = (5, 9, 3, 20, 7)
SAMPLED = RequestOptions(LIMIT, temperature=1.5, top_p=0.9, seed=3)
GREEDY = RequestOptions(LIMIT)


@pytest.fixture(scope="module", params=["decoder", "t5"])
def model(request: pytest.FixtureRequest) -> tuple[Network, Params]:
    network, params = network_and_params(CONFIGS[request.param])
    return network, jax.tree.map(lambda leaf: 3 * leaf, params)  # surer of itself, so that answers differ in length


def make_rows(model: tuple[Network, Params], count: int) -> Rows[int]:
    network, params = model
    return Rows(Generator(params, RequestStrategy(network, EOS, LIMIT), count, 0), count, 32)


def prompts(options: list[RequestOptions]) -> list[Prompt]:
    return [
        Prompt(f"example {n}", tokens(n, length), asked)
        for n, (length, asked) in enumerate(zip(LENGTHS, options, strict=False))
    ]


def write(rows: Rows[int], asked: list[Prompt]) -> dict[int, list[int]]:
    """Write answers a token at a time, each prompt in the first row that is free."""
    waiting, written = list(enumerate(asked)), dict[int, list[int]]()
    while waiting or rows.busy:
        while waiting and rows.room:
            rows.put([waiting.pop(0)])
        progress = rows.decode(0, max_steps=1)
        done = [row for row, _ in rows.held() if not progress.active[row]]
        written |= {n: rows.cut(np.asarray(progress.written[row])) for row, n in rows.held() if row in done}
        rows.free(done)
    return written


def test_each_row_is_decoded_in_its_own_way(model: tuple[Network, Params]) -> None:
    network, params = model
    sampling = SingleStrategy(network, EOS, LIMIT, temperature=1.5, top_p=0.9)
    plain = [Prompt(prompt.id, prompt.tokens) for prompt in prompts([GREEDY] * len(LENGTHS))]
    drawn = {one.index: one.tokens for one in Generator(params, sampling, 8, 3).run(plain)}
    oracle = Oracle(network, params)
    asked = prompts([GREEDY, SAMPLED, GREEDY, SAMPLED, SAMPLED])
    expected = {
        n: drawn[n] if prompt.options == SAMPLED else greedy(oracle, prompt.tokens, LIMIT)
        for n, prompt in enumerate(asked)
    }
    assert write(make_rows(model, 8), asked) == expected
    assert write(make_rows(model, 2), asked) == expected  # as others leave


def test_each_row_has_its_own_limit_and_beginning(model: tuple[Network, Params]) -> None:
    oracle = Oracle(*model)
    forced = (7, 5, 9)
    asked = prompts([RequestOptions(2), RequestOptions(LIMIT, forced=forced), RequestOptions(4, forced=forced)])
    written = write(make_rows(model, 3), asked)
    assert written[0] == greedy(oracle, asked[0].tokens, 2)
    for n, limit in ((1, LIMIT), (2, 4)):
        expected, kept = [*forced], asked[n].tokens
        while len(expected) < limit and (token := int(np.argmax(oracle.next(kept, expected)))) != EOS:
            expected.append(token)
        assert written[n] == expected


def test_log_probabilities_are_those_of_the_full_forward_pass(model: tuple[Network, Params]) -> None:
    oracle, rows = Oracle(*model), make_rows(model, 2)
    asked = prompts([dataclasses.replace(GREEDY, logprobs=True), GREEDY])
    rows.put([(0, asked[0])])
    rows.put([(1, asked[1])])
    progress = rows.decode(0)
    told: Logprobs = jax.device_get(progress.details)
    answer = np.asarray(progress.written[0])[: int(progress.lengths[0])]
    assert len(answer) > 2
    for place, token in enumerate(answer):
        expected = oracle.next(asked[0].tokens, answer[:place].tolist())
        np.testing.assert_allclose(told.chosen[0, place], expected[token], atol=1e-4)
        np.testing.assert_allclose(told.top[0, place], np.sort(expected)[::-1][:5], atol=1e-4)
        np.testing.assert_allclose(expected[told.top_ids[0, place]], told.top[0, place], atol=1e-4)


def test_a_row_that_is_released_serves_another(model: tuple[Network, Params]) -> None:
    rows = make_rows(model, 1)
    first, second = prompts([GREEDY, GREEDY])
    rows.put([(0, first)])
    rows.decode(0, max_steps=1)
    rows.release([0])
    assert rows.busy == 0
    assert write(rows, [second])[0] == greedy(Oracle(*model), second.tokens, LIMIT)
