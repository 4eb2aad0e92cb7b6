from typing import Any

import jax
import numpy as np
import pytest

from coi_jax.common.errors import UserError
from coi_jax.config.run import EvaluationConfig
from coi_jax.inference.beam_search import BeamStrategy
from coi_jax.inference.decoding import SingleStrategy, Strategy
from coi_jax.inference.generator import (
    Answer,
    Generator,
    batch_rows,
    batch_sizes,
    make_strategy,
)
from coi_jax.inference.rows import Prompt, pad_length
from coi_jax.models import Network, Params
from coi_jax.parallel import sharding
from tests.helpers import tiny_models
from tests.helpers.continuations import EOS, Oracle, greedy
from tests.helpers.tiny_networks import CONFIGS, change, network_and_params, tokens

Model = tuple[Network, Params]

LIMIT = 10
PROMPTS = [Prompt(f"example {n}", tokens(n, length)) for n, length in enumerate((5, 9, 3, 20, 7, 5, 12, 8))]


def make_model(kind: str, **fields: Any) -> Model:
    network, params = network_and_params(change(CONFIGS[kind], **fields))
    return network, jax.tree.map(lambda leaf: 3 * leaf, params)  # surer of itself, so that answers differ in length


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model("decoder")


def answers(model: Model, batch: int, **options: Any) -> dict[str, list[int]]:
    network, params = model
    beams, multiple = options.pop("beams", 0), options.pop("multiple", 1)
    made: Strategy = (
        BeamStrategy(network, EOS, LIMIT, beams) if beams else SingleStrategy(network, EOS, LIMIT, **options)
    )
    return {PROMPTS[one.index].id: one.tokens for one in Generator(params, made, batch, 0, multiple).run(PROMPTS)}


@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_equals_the_full_forward_pass(kind: str) -> None:
    model = make_model(kind)
    oracle = Oracle(*model)
    expected = {prompt.id: greedy(oracle, prompt.tokens, LIMIT) for prompt in PROMPTS}
    assert answers(model, 8) == expected
    assert len(set(map(tuple, expected.values()))) > 3


OPTIONS: dict[str, dict[str, Any]] = {"greedy": {}, "sample": {"temperature": 1.5, "top_p": 0.9}, "beam": {"beams": 3}}


@pytest.mark.parametrize(("kind", "decoding"), [("decoder", "greedy"), ("decoder", "beam"), ("t5", "sample")])
def test_logits_that_are_not_finite_are_no_answer(kind: str, decoding: str) -> None:
    network, params = make_model(kind)
    table, token = params["embedding"]["table"], PROMPTS[3].tokens[2]
    diverged = params | {"embedding": params["embedding"] | {"table": table.at[token].set(np.nan)}}
    with pytest.raises(UserError, match=r"^prompt: example 3: the model's logits are not finite"):
        answers((network, diverged), 8, **OPTIONS[decoding])


@pytest.mark.parametrize(("kind", "decoding"), [("decoder", "greedy"), ("decoder", "beam"), ("t5", "sample")])
def test_the_batch_does_not_change_an_answer(kind: str, decoding: str) -> None:
    model = make_model(kind)
    written = [answers(model, batch, **OPTIONS[decoding]) for batch in (1, 3, 8)]
    assert written[0] == written[1] == written[2]
    assert written[0].keys() == {prompt.id for prompt in PROMPTS}


@pytest.mark.parametrize("decoding", ["greedy", "sample"])
def test_neither_order_nor_company_change_an_answer(model: Model, decoding: str) -> None:
    network, params = model
    generator = Generator(params, SingleStrategy(network, EOS, LIMIT, **OPTIONS[decoding]), 3, 0, longest=32)

    def write(prompts: list[Prompt]) -> dict[str, list[int]]:
        return {prompts[one.index].id: one.tokens for one in generator.run(prompts)}

    together = write(PROMPTS)
    assert write(PROMPTS[::-1]) == together
    parts = [PROMPTS[5:], PROMPTS[:5]]
    assert write(parts[0]) | write(parts[1]) == together


@pytest.mark.parametrize(("kind", "programs"), [("decoder", 4), ("t5", 6)])
def test_a_suite_of_many_lengths_compiles_few_programs(kind: str, programs: int) -> None:
    """An encoder reads prompts padded to one of three lengths. Parameters are committed, as those of a checkpoint."""
    network, params = make_model(kind)
    params = jax.device_put(params, jax.devices()[0])
    compiled: list[str] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        compiled.extend([event] if event.endswith("backend_compile_duration") else [])

    jax.monitoring.register_event_duration_secs_listener(note)
    sets = [[Prompt(f"{base} {n}", tokens(n, base + 5 * n)) for n in range(6)] for base in (1, 20, 60, 100)]
    before = len(compiled)
    generator = Generator(params, SingleStrategy(network, EOS, 4), 4, 0, longest=125)
    answers = [list(generator.run(prompts)) for prompts in sets]
    assert [len(found) for found in answers] == [6, 6, 6, 6]
    assert len(generator.shapes) == programs - 1
    assert 1 <= len(compiled) - before <= programs


@pytest.mark.parametrize("decoding", ["greedy", "sample", "beam"])
@pytest.mark.parametrize("multiple", [1, 2])
def test_a_beginning_that_prompts_share_is_read_once_and_changes_no_answer(
    decoding: str, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coi_jax.models.decoder.CHUNK_ON_CPU", 4)
    model = make_model("decoder", layers=3 + multiple)  # of its own, as compiled programs know the length of a chunk
    shared = tokens(1, 18)
    ends = [tokens(n, length) for n, length in enumerate((7, 3, 3, 1, 9, 2), start=2)]
    prompts = [Prompt(f"{n}", np.concatenate([shared, end])) for n, end in enumerate(ends)]
    prompts += [Prompt("cut", shared[:9]), Prompt("the same", shared[:9]), Prompt("other", tokens(9, 11))]

    def write(asked: list[Prompt]) -> tuple[dict[str, list[int]], int]:
        network, params = model
        beams = OPTIONS[decoding].get("beams", 0)
        single = {} if beams else OPTIONS[decoding]
        made = BeamStrategy(network, EOS, LIMIT, beams) if beams else SingleStrategy(network, EOS, LIMIT, **single)
        generator = Generator(params, made, 3, 0, multiple, longest=32)
        return {asked[one.index].id: one.tokens for one in generator.run(asked)}, generator.reused

    together, reused = write(prompts)
    alone = [write([prompt]) for prompt in prompts]
    assert together == {name: written for answers, _ in alone for name, written in answers.items()}
    assert [count for _, count in alone] == [0] * len(prompts)
    # Longest first; 16 of 18 shared tokens are whole chunks. Two of 9 tokens follow one that begins otherwise.
    assert reused == {1: 5 * 16 + 0 + 8, 2: 4 * 16 + 0}[multiple]


def test_an_encoder_reads_all_of_a_prompt() -> None:
    network, params = make_model("t5")
    generator = Generator(params, SingleStrategy(network, EOS, LIMIT), 1, 0)
    list(generator.run([Prompt("first", tokens(1, 9)), Prompt("second", tokens(1, 9))]))
    assert generator.reused == 0


def test_answers_come_in_an_order_that_depends_on_the_prompts_alone(model: Model) -> None:
    network, params = model
    orders = []
    for batch in (1, 3, 8):
        found = Generator(params, SingleStrategy(network, EOS, LIMIT), batch, 0).run(PROMPTS)
        orders.append([one.index for one in found])
    assert orders[0] == orders[1] == orders[2] == sorted(range(8), key=lambda index: -len(PROMPTS[index].tokens))


def test_layers_that_are_not_looped_over_change_no_answer(model: Model) -> None:
    network, params = model
    unrolled = Network(network.config.model_copy(update={"scan_unroll": 3}), network.vocabulary_size)
    assert unrolled.unrolls_decoding
    assert not network.unrolls_decoding
    assert answers((unrolled, params), 8, beams=2) == answers(model, 8, beams=2)


def test_one_beam_is_greedy(model: Model) -> None:
    assert answers(model, 8, beams=1) == answers(model, 8)


def test_draws_depend_on_the_seed_and_not_on_neighbours(model: Model) -> None:
    network, params = model
    strategy = SingleStrategy(network, EOS, LIMIT, temperature=2.0)

    def write(prompts: list[Prompt], seed: int) -> list[list[int]]:
        found = Generator(params, strategy, 8, seed).run(prompts)
        return [one.tokens for one in sorted(found, key=lambda one: one.index)]

    first, again, other = write(PROMPTS, 0), write(PROMPTS[:2], 0), write(PROMPTS, 1)
    assert first[:2] == again
    assert first != other


def test_prompts_take_the_rows_of_answers_that_ended(model: Model) -> None:
    network, params = model
    generator = Generator(params, SingleStrategy(network, EOS, 60, temperature=9.0), 4, 0)
    found = list(generator.run([Prompt(str(n), tokens(n, 6)) for n in range(16)]))
    assert sorted(one.index for one in found) == list(range(16))
    assert all(EOS not in one.tokens for one in found)
    assert all(one.complete == (len(one.tokens) < 60) for one in found)
    lengths = [len(one.tokens) + one.complete for one in found]
    assert len(set(lengths)) > 8
    assert generator.steps <= sum(lengths) / 4 + max(lengths)


def test_answers_that_reach_the_limit_say_so(model: Model) -> None:
    network, params = model
    generator = Generator(params, SingleStrategy(network, -1, LIMIT), 8, 0)
    assert all((len(one.tokens), one.complete) == (LIMIT, False) for one in generator.run(PROMPTS))


def test_a_model_may_end_its_answers_in_several_ways(model: Model) -> None:
    network, params = model
    whole = answers(model, 8)
    other = max(whole.values(), key=len)[2]
    for made in (
        SingleStrategy(network, EOS, LIMIT, other_eos_ids=(other,)),
        BeamStrategy(network, EOS, LIMIT, 1, (other,)),
    ):
        found = {PROMPTS[one.index].id: one.tokens for one in Generator(params, made, 8, 0).run(PROMPTS)}
        assert found == {id: [*tokens, other][: [*tokens, other].index(other)] for id, tokens in whole.items()}


def test_known_answers_are_not_given_again(model: Model) -> None:
    network, params = model
    generator = Generator(params, SingleStrategy(network, EOS, LIMIT), 3, 0)
    everything = {one.index: one for one in generator.run(PROMPTS)}
    skip = frozenset(prompt.id for prompt in PROMPTS[:6])
    rest: list[Answer] = list(generator.run(PROMPTS, skip))
    assert sorted(one.index for one in rest) == [6, 7]
    assert all(everything[one.index] == one for one in rest)
    assert list(generator.run(PROMPTS, frozenset(prompt.id for prompt in PROMPTS))) == []


@pytest.mark.parametrize(("length", "padded"), [(1, 32), (32, 32), (33, 64), (64, 64), (600, 1024)])
def test_pad_length_is_the_next_power_of_two(length: int, padded: int) -> None:
    assert pad_length(length) == padded


def test_long_prompts_have_smaller_batches() -> None:
    assert [batch_rows(length, 64) for length in (32, 512, 1024, 2048, 2**15)] == [64, 64, 32, 16, 1]


@pytest.mark.parametrize("batch", [1, 3, 8, 100, 256])
@pytest.mark.parametrize("multiple", [1, 6, 16])
def test_sizes_hold_the_batch_and_a_single_row_cheaply_and_divide(batch: int, multiple: int) -> None:
    sizes = batch_sizes(batch, multiple)
    assert sizes == sorted(set(sizes))
    assert batch <= sizes[-1] < batch + multiple
    assert sizes[0] <= max(8, multiple)
    assert all(size % multiple == 0 for size in sizes)
    assert batch_rows(4096, batch, multiple) % multiple == 0


@pytest.mark.parametrize(
    ("decoding", "kind", "temperature"),
    [
        ({"kind": "greedy"}, SingleStrategy, None),
        ({"kind": "sample", "temperature": 0.7, "top_p": 0.5}, SingleStrategy, 0.7),
        ({"kind": "beam", "beams": 4, "length_penalty": 0.5, "early_stopping": True}, BeamStrategy, 0),
    ],
    ids=["greedy", "sample", "beam"],
)
def test_strategy_is_the_one_that_the_config_names(
    model: Model, decoding: dict[str, Any], kind: type[SingleStrategy | BeamStrategy], temperature: float | None
) -> None:
    numbers = {"max_new_tokens": 5, "batch": 2, "bootstrap": 10}
    config = EvaluationConfig.model_validate({"tests": ("bbh",), "decoding": decoding, **numbers})
    strategy = make_strategy(model[0], EOS, config)
    assert isinstance(strategy, kind)
    assert strategy.max_new_tokens == 5
    assert getattr(strategy, "temperature", 0) == temperature
    assert getattr(strategy, "length_penalty", 0.5) == 0.5
    assert getattr(strategy, "early_stopping", True)


@pytest.mark.parametrize(
    ("kind", "decoding", "axes"),
    [
        ("decoder", "beam", {"replica": 2, "fsdp": 2, "tensor": 2}),
        ("t5", "sample", {"fsdp": 2, "tensor": 2, "sequence": 2}),
    ],
)
def test_a_mesh_does_not_change_an_answer(kind: str, decoding: str, axes: dict[str, int]) -> None:
    network, params = make_model(kind, heads=4) if kind == "t5" else make_model(kind, heads=4, kv_heads=2)
    mesh = tiny_models.mesh(**axes)
    alone = answers((network, params), 8, **OPTIONS[decoding])
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.shardings(network.logical_axes(), network.abstract(), mesh))
        found = answers((network, placed), 8, multiple=sharding.data_parallel(mesh), **OPTIONS[decoding])
    assert found == alone


@pytest.mark.parametrize(("kind", "kv_heads"), [("decoder", 2), ("decoder", 1), ("t5", 4)])
def test_the_cache_is_divided_by_rows_and_heads(kind: str, kv_heads: int) -> None:
    """Where `tensor` is a multiple of the key-value heads every one of its devices has them all."""
    network, params = make_model(kind, heads=4) if kind == "t5" else make_model(kind, heads=4, kv_heads=kv_heads)
    mesh = tiny_models.mesh(replica=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.shardings(network.logical_axes(), network.abstract(), mesh))
        prompts, lengths = np.ones((8, 16), np.int32), np.full(8, 16, np.int32)
        logits, cache = jax.jit(network.prefill, static_argnames="max_new_tokens")(
            placed, prompts, lengths, max_new_tokens=4
        )
        _, later = jax.jit(network.decode_step)(placed, cache, np.ones(8, np.int32))
    assert logits.sharding.shard_shape(logits.shape) == (2, network.vocabulary_size // 2)
    for state in (cache, later):
        for leaf in jax.tree.leaves((state.self_attention, state.cross_attention)):
            layers, rows, heads, slots, head = leaf.shape
            assert (rows, heads) == (8, kv_heads)
            assert leaf.sharding.shard_shape(leaf.shape) == (layers, 2, max(1, kv_heads // 2), slots, head)
        assert state.length.sharding.shard_shape(state.length.shape) == (2,)
