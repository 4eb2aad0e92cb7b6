"""What every network promises: isolation in packed rows, cached decoding, one result however layers are run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.config.run import MeshConfig
from coi_jax.families.decoder_common import PLAIN_ROPE
from coi_jax.models import Network, Params, build, gather_rows
from coi_jax.models.kv_cache import unstack_layers
from coi_jax.parallel import sharding
from tests.helpers.tiny_networks import CONFIGS, VOCABULARY, change, network_and_params, pack, pack_pairs, pad, tokens

LENGTH = 16
Config = DecoderConfig | T5Config
Pair = tuple[Network, Params]


@pytest.fixture(scope="module", params=CONFIGS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def config(kind: str) -> Config:
    return CONFIGS[kind]


@pytest.fixture(scope="module")
def pair(config: Config) -> Pair:
    return network_and_params(config)


def packed(kind: str) -> dict[str, jax.Array]:
    """Two examples in the first row, one in the second."""
    if kind == "decoder":
        return pack([[tokens(1, 8), tokens(2, 6)], [tokens(3, 12)]], LENGTH)
    first, second, third = ((tokens(n, 4 + n), tokens(n + 9, 3 + n)) for n in range(3))
    return pack_pairs([[first, second], [third]], LENGTH)


def alone(kind: str) -> dict[str, jax.Array]:
    """The same three examples, each in a row of its own."""
    if kind == "decoder":
        return pack([[tokens(1, 8)], [tokens(2, 6)], [tokens(3, 12)]], LENGTH)
    return pack_pairs([[(tokens(n, 4 + n), tokens(n + 9, 3 + n))] for n in range(3)], LENGTH)


def test_packed_examples_equal_each_alone(kind: str, pair: Pair) -> None:
    network, params = pair
    logits = jax.jit(network.logits)
    batch, single = packed(kind), alone(kind)
    together, apart = logits(params, batch), logits(params, single)
    for row, place in enumerate([(0, 1), (0, 2), (1, 1)]):
        ours = together[place[0]][batch["segments"][place[0]] == place[1]]
        np.testing.assert_allclose(ours, apart[row][single["segments"][row] == 1], atol=1e-5)


def test_loss_of_packed_equals_padded(kind: str, pair: Pair) -> None:
    network, params = pair
    loss = jax.jit(network.loss)
    together, apart = loss(params, packed(kind)), loss(params, alone(kind))
    np.testing.assert_allclose(together, apart, rtol=1e-5)


def test_no_gradient_from_later_tokens_or_other_examples(kind: str, pair: Pair) -> None:
    """Every position has a token of its own, so that a row of the embedding's gradient is one position's."""
    network, params = pair
    own = np.arange(1, 1 + LENGTH, dtype=np.int32)
    batch = pack([[own[:9], own[8:]]], LENGTH)
    if kind == "t5":
        batch = pack_pairs([[(own[:5] + 20, own[:8]), (own[5:9] + 20, own[8:])]], LENGTH)
    batch["tokens"] = jnp.asarray(own)[None]

    def logit(params: Params, position: int) -> jax.Array:
        return jnp.sum(network.logits(params, batch)[0, position] ** 2)

    gradient = jax.jit(jax.grad(logit))
    for position, seen in ((3, range(0, 4)), (7, range(0, 8)), (8, range(8, 9)), (12, range(8, 13))):
        rows = np.abs(gradient(params, position)["embedding"]["table"]).sum(axis=-1) > 0
        assert set(np.flatnonzero(rows[: LENGTH + 1])) == {own[index] for index in seen}
        if kind == "t5":
            assert set(np.flatnonzero(rows[21:]) + 1) == set(own[:5] if position < 8 else own[5:9])


def full_logits(kind: str, pair: Pair, prompts: list[np.ndarray], answers: np.ndarray) -> jax.Array:
    """Of each row after its prompt and after every answer token but the last, without a cache."""
    network, params = pair
    compute = jax.jit(network.logits)
    if kind == "t5":
        pairs = [[(prompt, answer)] for prompt, answer in zip(prompts, answers, strict=True)]
        of_answers: jax.Array = compute(params, pack_pairs(pairs, LENGTH))[:, : answers.shape[1]]
        return of_answers
    examples = [[np.concatenate(both)] for both in zip(prompts, answers, strict=True)]
    logits: jax.Array = compute(params, pack(examples, LENGTH))
    starts = np.array([len(prompt) - 1 for prompt in prompts])
    return logits[np.arange(len(prompts))[:, None], starts[:, None] + np.arange(answers.shape[1])[None]]


def test_cached_decoding_equals_the_full_forward_pass(kind: str, pair: Pair) -> None:
    network, params = pair
    prompts = [tokens(1, 3), tokens(2, 9), tokens(3, 1)]
    answers = np.stack([tokens(seed, 6) for seed in (4, 5, 6)])
    step, prefill = jax.jit(network.decode_step), jax.jit(functools.partial(network.prefill, max_new_tokens=5))
    expected = full_logits(kind, pair, prompts, answers)
    logits, cache = prefill(params, *pad(prompts))
    np.testing.assert_allclose(logits, expected[:, 0], atol=1e-5)
    for index in range(5):
        logits, cache = step(params, cache, jnp.asarray(answers[:, index]))
        np.testing.assert_allclose(logits, expected[:, index + 1], atol=1e-5)


FAMILIES: dict[str, dict[str, Any]] = {
    "sliding window": {"window": 4},
    "local and global layers, soft caps": {
        "window": 4,
        "global_layer_interval": 2,
        "attention_softcap": 2.0,
        "logits_softcap": 3.0,
    },
    "LongRoPE, partial rotation": {
        "rope": PLAIN_ROPE
        | {
            "theta": 500.0,
            "scaling": "longrope",
            "factor": 2.0,
            "original_length": 8,
            "rotated_share": 0.5,
            "short_factors": (1.0, 2.0),
            "long_factors": (3.0, 5.0),
        }
    },
    "T5": {},
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_prompts_read_in_chunks_into_a_longer_cache_are_read_whole(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each prompt is followed by one token, so that its keys and values are compared as well."""
    monkeypatch.setattr("coi_jax.models.decoder.CHUNK_ON_CPU", 4)
    monkeypatch.setattr("coi_jax.models.attention.CACHE_BLOCK", 7)
    kind = "t5" if family == "T5" else "decoder"
    network, params = network_and_params(change(CONFIGS[kind], **FAMILIES[family]))
    prompts = [tokens(1, 3), tokens(2, 14), tokens(3, 6), tokens(4, 1)]
    answers = np.stack([tokens(seed, 2) for seed in (4, 5, 6, 7)])
    expected = full_logits(kind, (network, params), prompts, answers)
    held = network.unstack_layers(params)
    prefill = jax.jit(functools.partial(network.prefill, max_new_tokens=9, longest=21))
    logits, cache = prefill(held, *pad(prompts))
    later, _ = jax.jit(network.decode_step)(held, cache, jnp.asarray(answers[:, 0]))
    np.testing.assert_allclose(logits, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(later, expected[:, 1], atol=1e-5)


def test_take_repeats_drops_and_reorders_rows(kind: str, pair: Pair) -> None:
    network, params = pair
    prompts = [tokens(1, 3), tokens(2, 9), tokens(3, 1)]
    step, prefill = jax.jit(network.decode_step), jax.jit(functools.partial(network.prefill, max_new_tokens=4))
    _, cache = step(params, prefill(params, *pad(prompts))[1], jnp.asarray([5, 6, 7]))
    chosen = jnp.asarray([2, 0, 0, 1, 2])
    next_tokens = jnp.asarray([8, 9, 10])
    expected, _ = step(params, cache, next_tokens)
    ours, _ = step(params, gather_rows(cache, chosen), next_tokens[chosen])
    np.testing.assert_allclose(ours, expected[chosen], atol=1e-5)
    apart = gather_rows(unstack_layers(cache), chosen)
    jax.tree.map(np.testing.assert_array_equal, apart, unstack_layers(gather_rows(cache, chosen)))
    ours, _ = step(network.unstack_layers(params), apart, next_tokens[chosen])
    np.testing.assert_allclose(ours, expected[chosen], atol=1e-5)


def loss_and_gradients(kind: str, config: Config, params: Params) -> tuple[jax.Array, Params]:
    """With dropout, so that its keys are compared too."""
    network = build(change(config, dropout=0.1), VOCABULARY)

    def loss(params: Params) -> jax.Array:
        sums = network.loss(params, packed(kind), key=jax.random.key(3))
        return sums.loss / sums.tokens

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    return value, gradients


@pytest.fixture(scope="module")
def scanned(kind: str, config: Config, pair: Pair) -> tuple[jax.Array, Params]:
    return loss_and_gradients(kind, config, pair[1])


@pytest.mark.parametrize("fields", [{"remat": "dots", "scan_unroll": 3}, {"remat": "full"}], ids=str)
def test_unrolling_and_remat_change_no_result(
    kind: str, config: Config, pair: Pair, scanned: tuple[jax.Array, Params], fields: dict[str, Any]
) -> None:
    ours = loss_and_gradients(kind, change(config, **fields), pair[1])
    jax.tree.map(lambda ours, expected: np.testing.assert_allclose(ours, expected, atol=1e-5), ours, scanned)


def test_remat_by_name_changes_no_result() -> None:
    _, params = network_and_params(change(CONFIGS["decoder"], layers=1))
    expected, *others = (
        loss_and_gradients("decoder", change(CONFIGS["decoder"], layers=1, remat=policy), params)
        for policy in ("none", "attention", "projections", "dots_attention")
    )
    for ours in others:
        jax.tree.map(lambda ours, expected: np.testing.assert_allclose(ours, expected, atol=1e-5), ours, expected)


def test_dropout_is_a_function_of_its_key(kind: str, config: Config, pair: Pair) -> None:
    _, params = pair
    loss = jax.jit(build(change(config, dropout=0.3), VOCABULARY).loss)
    first, again, other = (loss(params, packed(kind), key=jax.random.key(seed)).loss for seed in (0, 0, 1))
    assert first == again
    assert len({float(first), float(other), float(loss(params, packed(kind)).loss)}) == 3


def test_bfloat16_computes_with_fp32_parameters(kind: str, config: Config, pair: Pair) -> None:
    exact, params = pair
    network = build(change(config, dtype="bfloat16"), VOCABULARY)
    assert {leaf.dtype for leaf in jax.tree.leaves(network.abstract())} == {jnp.dtype("float32")}
    logits = jax.jit(network.logits)(params, packed(kind))
    assert logits.dtype == jnp.bfloat16
    np.testing.assert_allclose(logits.astype(jnp.float32), exact.logits(params, packed(kind)), atol=0.15)
    gradients = jax.jit(jax.grad(lambda params: network.loss(params, packed(kind)).loss))(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))


def test_logical_axes_name_every_dimension(pair: Pair) -> None:
    network, _ = pair

    def check(leaf: jax.ShapeDtypeStruct, axes: tuple[str | None, ...]) -> None:
        assert len(axes) == len(leaf.shape)
        assert set(axes) <= {None, *sharding.PARAMETER_RULES}

    jax.tree.map(check, network.abstract(), network.logical_axes(), is_leaf=lambda node: isinstance(node, tuple))


def test_init_is_a_function_of_its_key(pair: Pair) -> None:
    network, params = pair
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), network.abstract()
    )
    again, other = network.init(jax.random.key(0)), network.init(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert not np.array_equal(params["head"]["kernel"], other["head"]["kernel"])


def test_fresh_network_predicts_about_evenly(kind: str, pair: Pair) -> None:
    network, params = pair
    sums = network.loss(params, packed(kind))
    assert sums.loss / sums.tokens < 2 * np.log(VOCABULARY)


def test_mesh_changes_no_result(kind: str, config: Config) -> None:
    fields = {"heads": 4} if kind == "t5" else {"heads": 4, "kv_heads": 2}
    network, params = network_and_params(change(config, **fields))
    batch = packed(kind)

    def loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        return network.loss(params, batch).loss

    expected = jax.jit(jax.value_and_grad(loss))(params, batch)
    mesh = sharding.make_mesh(MeshConfig(replica=1, fsdp=2, tensor=2, sequence=2))
    params = jax.device_put(params, sharding.shardings(network.logical_axes(), network.abstract(), mesh))
    with jax.set_mesh(mesh):
        ours = jax.jit(jax.value_and_grad(loss))(params, jax.device_put(batch, sharding.batch_sharding(mesh)))
    jax.tree.map(
        lambda ours, expected: np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5), ours, expected
    )


def test_decoding_reads_matrices_in_the_compute_dtype(kind: str, config: Config, pair: Pair) -> None:
    """Which changes no logits: they would be rounded at every use."""
    network = build(change(config, dtype="bfloat16"), VOCABULARY)
    held = network.cast_for_decoding(pair[1])
    kept = {path: leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(held)}
    assert {str(dtype) for dtype in kept.values()} == {"bfloat16", "float32"}
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(held)) < 0.55 * sum(
        leaf.nbytes for leaf in jax.tree.leaves(pair[1])
    )
    prefill = jax.jit(network.prefill, static_argnames="max_new_tokens")
    ours, expected = (prefill(params, *pad([tokens(1, 9)]), max_new_tokens=1)[0] for params in (held, pair[1]))
    np.testing.assert_array_equal(ours, expected)


def test_layers_of_two_kinds_are_the_same_apart() -> None:
    network, params = network_and_params(change(CONFIGS["decoder"], window=4, global_layer_interval=2))
    step = jax.jit(network.decode_step)
    prefill = jax.jit(network.prefill, static_argnames="max_new_tokens")
    _, cache = prefill(params, *pad([tokens(1, 9)]), max_new_tokens=1)
    ours, _ = step(network.unstack_layers(params), unstack_layers(cache), jnp.asarray([5]))
    np.testing.assert_allclose(ours, step(params, cache, jnp.asarray([5]))[0], atol=1e-5)
