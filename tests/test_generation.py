from collections.abc import Iterator

import jax
import numpy as np
import pytest

from coi_jax import generation
from coi_jax.beam import BeamStrategy
from coi_jax.config import EvaluationConfig
from coi_jax.decoding import SingleStrategy
from coi_jax.generation import Answer, Generator, Prompt, batch_sizes, bucket, make_strategy, plan, rows_at
from tests.continuations import EOS, Oracle, greedy
from tests.models.sizes import CONFIGS, network_and_params, tokens
from tests.stand_ins import quick_compilation

LIMIT = 10
PROMPTS = [Prompt(f"example {n}", tokens(n, length)) for n, length in enumerate((5, 9, 3, 20, 7, 5, 12, 8))]


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cache grows on the way."""
    monkeypatch.setattr(generation, "FIRST_ROOM", 4)
    with quick_compilation():
        yield


def make_model(kind: str) -> tuple:
    network, params = network_and_params(CONFIGS[kind])
    return network, jax.tree.map(lambda leaf: 3 * leaf, params)  # surer of itself, so that answers differ in length


@pytest.fixture(scope="module")
def model() -> tuple:
    return make_model("decoder")


def answers(model: tuple, batch: int, **options: object) -> dict[str, list[int]]:
    network, params = model
    beams = options.pop("beams", 0)
    made = BeamStrategy(network, EOS, LIMIT, beams) if beams else SingleStrategy(network, EOS, LIMIT, **options)
    return {PROMPTS[one.index].id: one.tokens for one in Generator(params, made, batch, seed=0).run(PROMPTS)}


@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_equals_the_full_forward_pass(kind: str) -> None:
    model = make_model(kind)
    oracle = Oracle(*model)
    expected = {prompt.id: greedy(oracle, prompt.tokens, LIMIT) for prompt in PROMPTS}
    assert answers(model, 8) == expected
    assert len(set(map(tuple, expected.values()))) > 3


OPTIONS = {"greedy": {}, "sample": {"temperature": 1.5, "top_p": 0.9}, "beam": {"beams": 3}}


@pytest.mark.parametrize(("kind", "decoding"), [("decoder", "greedy"), ("decoder", "beam"), ("t5", "sample")])
def test_the_batch_does_not_change_an_answer(kind: str, decoding: str) -> None:
    model = make_model(kind)
    written = [answers(model, batch, **OPTIONS[decoding]) for batch in (1, 3, 8)]
    assert written[0] == written[1] == written[2]
    assert written[0].keys() == {prompt.id for prompt in PROMPTS}


def test_one_beam_is_greedy(model: tuple) -> None:
    assert answers(model, 8, beams=1) == answers(model, 8)


def test_draws_depend_on_the_seed_and_not_on_neighbours(model: tuple) -> None:
    network, params = model
    strategy = SingleStrategy(network, EOS, LIMIT, temperature=2.0)

    def write(prompts: list[Prompt], seed: int) -> list[list[int]]:
        found = Generator(params, strategy, 8, seed).run(prompts)
        return [one.tokens for one in sorted(found, key=lambda one: one.index)]

    first, again, other = write(PROMPTS, 0), write(PROMPTS[:2], 0), write(PROMPTS, 1)
    assert first[:2] == again
    assert first != other


def test_rows_that_ended_stop_costing_time(model: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "FIRST_ROOM", 128)
    network, params = model
    generator = Generator(params, SingleStrategy(network, EOS, 100, temperature=9.0), 16, 0)
    found = list(generator.run([Prompt(str(n), tokens(n, 6)) for n in range(16)]))
    assert {rows for program, _, rows, _ in generator.shapes if program == "decode"} == {16, 4}
    assert sorted(one.index for one in found) == list(range(16))
    assert all(EOS not in one.tokens for one in found)
    assert all(one.complete == (len(one.tokens) < 100) for one in found)


def test_answers_that_reach_the_limit_say_so(model: tuple) -> None:
    network, params = model
    generator = Generator(params, SingleStrategy(network, -1, LIMIT), 8, 0)
    assert all((len(one.tokens), one.complete) == (LIMIT, False) for one in generator.run(PROMPTS))


def test_known_answers_are_not_given_again(model: tuple) -> None:
    network, params = model
    generator = Generator(params, SingleStrategy(network, EOS, LIMIT), 3, 0)
    everything = {one.index: one for one in generator.run(PROMPTS)}
    skip = frozenset(prompt.id for prompt in PROMPTS[:6])
    rest: list[Answer] = list(generator.run(PROMPTS, skip))
    assert sorted(one.index for one in rest) == [6, 7]
    assert all(everything[one.index] == one for one in rest)
    assert list(generator.run(PROMPTS, frozenset(prompt.id for prompt in PROMPTS))) == []


@pytest.mark.parametrize(("length", "padded"), [(1, 32), (32, 32), (33, 64), (64, 64), (600, 1024)])
def test_bucket_is_the_next_power_of_two(length: int, padded: int) -> None:
    assert bucket(length) == padded


def test_plan_takes_every_prompt_once_and_mixes_no_buckets() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 500).tolist()
    batches = plan(lengths, 16)
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    assert all(len({bucket(lengths[index]) for index in batch}) == 1 for batch in batches)
    assert max(map(len, batches)) == 16


def test_long_prompts_have_smaller_batches() -> None:
    assert [rows_at(length, 64) for length in (32, 512, 1024, 2048, 2**15)] == [64, 64, 16, 4, 1]


@pytest.mark.parametrize("batch", [1, 3, 8, 100, 256])
def test_sizes_end_in_the_batch_and_hold_a_single_row_cheaply(batch: int) -> None:
    sizes = batch_sizes(batch)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batch
    assert sizes[0] <= 8


@pytest.mark.parametrize(
    ("decoding", "kind", "temperature"),
    [("greedy", SingleStrategy, None), ("sample", SingleStrategy, 0.7), ("beam", BeamStrategy, 0)],
)
def test_strategy_is_the_one_that_the_config_names(model: tuple, decoding: str, kind: type, temperature: float) -> None:
    numbers = {"temperature": 0.7, "top_p": 0.5, "beams": 4, "max_new_tokens": 5, "batch": 2, "bootstrap": 10}
    config = EvaluationConfig(tests=("bbh",), prompting="direct", decoding=decoding, **numbers)
    strategy = make_strategy(model[0], EOS, config)
    assert isinstance(strategy, kind)
    assert strategy.limit == 5
    assert getattr(strategy, "temperature", 0) == temperature
