"""Low-rank adapters beside frozen linear maps, and frozen maps in fewer bytes."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix

from coi_jax.common.errors import UserError
from coi_jax.config.model import LoraConfig
from coi_jax.models import Network, Params, build
from coi_jax.models.quantization import dequantize, quantize
from tests.coi_jax.models.test_network import LENGTH, packed
from tests.helpers.tiny_networks import CONFIGS, VOCABULARY, greedy, pack, pack_pairs, tokens

TARGETS = "attention|mlp|head"


def lora(**fields: object) -> LoraConfig:
    values = {
        "rank": 3,
        "alpha": 16.0,
        "targets": TARGETS,
        "dropout": 0.0,
        "rank_stabilized": False,
        "base_dtype": "float32",
    }
    return LoraConfig.model_validate(values | fields)


def adapted(kind: str, **fields: object) -> Network:
    return build(CONFIGS[kind], VOCABULARY, lora(**fields))


def with_random_adapters(network: Network, params: Params) -> Params:
    """Adapters that add something: B starts at zero."""
    adapters, frozen = network.split(params)
    noise = np.random.default_rng(5)
    adapters = jax.tree.map(lambda leaf: jnp.asarray(noise.normal(0, 0.1, leaf.shape), jnp.float32), adapters)
    return network.join(adapters, frozen)


@pytest.fixture(scope="module", params=CONFIGS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def params(kind: str) -> Params:
    params: Params = jax.jit(adapted(kind).init)(jax.random.key(0))
    return params


@functools.cache
def compiled(network: Network) -> Callable[..., jax.Array]:
    return jax.jit(network.logits)


def logits(network: Network, kind: str, params: Params) -> np.ndarray:
    return np.asarray(compiled(network)(params, packed(kind)))


@pytest.fixture(scope="module")
def applied(kind: str, params: Params) -> np.ndarray:
    """Logits of a network with random adapters."""
    return logits(adapted(kind), kind, with_random_adapters(adapted(kind), params))


def test_adapters_change_no_bit_before_the_first_step(kind: str, params: Params) -> None:
    plain = build(CONFIGS[kind], VOCABULARY)
    base = jax.jit(plain.init)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, adapted(kind).split(params)[1], base)
    np.testing.assert_array_equal(logits(adapted(kind), kind, params), logits(plain, kind, base))


def test_merged_equals_applied(kind: str, params: Params, applied: np.ndarray) -> None:
    plain = build(CONFIGS[kind], VOCABULARY)
    merged = adapted(kind).merge(with_random_adapters(adapted(kind), params))
    assert jax.tree.map(jnp.shape, merged) == jax.tree.map(lambda leaf: leaf.shape, plain.abstract())
    np.testing.assert_allclose(logits(plain, kind, merged), applied, atol=1e-5, rtol=1e-5)
    assert np.abs(logits(adapted(kind), kind, params) - applied).max() > 0.1


def test_dropout_is_of_every_adapters_input_and_a_function_of_its_key(kind: str, params: Params) -> None:
    """Before the first step it changes no loss, since B is zero. An adapter that had no key, or another's, would leave
    its A the same gradient whatever the key."""
    batch, network = packed(kind), adapted(kind, dropout=0.5)
    assert network.has_dropout
    assert not adapted(kind).has_dropout

    def loss(adapters: Params, frozen: Params, key: jax.Array) -> jax.Array:
        return network.loss(network.join(adapters, frozen), batch, key=key).loss

    def both(params: Params, seeds: list[int]) -> tuple[jax.Array, Params]:
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        return jax.vmap(jax.value_and_grad(loss), (None, None, 0))(*network.split(params), keys)

    step = jax.jit(both, static_argnums=1)
    losses, _ = step(params, (0, 0, 1))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)
    losses, gradients = step(with_random_adapters(network, params), (0, 0, 1))
    assert losses[0] == losses[1] != losses[2]
    for leaf in jax.tree.leaves(gradients):
        assert not np.allclose(leaf[0], leaf[2])


def test_only_what_the_expression_names_is_adapted(kind: str) -> None:
    adapters, frozen = adapted(kind, targets="attention.query|mlp.gate").split(
        adapted(kind, targets="attention.query|mlp.gate").logical_axes()
    )
    names = {
        ".".join(key.key for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(adapters, is_leaf=lambda node: isinstance(node, tuple))
    }
    stacks = {"decoder": ["layers"], "t5": ["encoder", "decoder"]}[kind]
    maps = [f"{stack}.{name}" for stack in stacks for name in ("attention.query", "mlp.gate")]
    maps += ["decoder.cross_attention.query"] * (kind == "t5")
    assert names == {f"{name}.adapter.{part}" for name in maps for part in "ab"}
    assert adapters[stacks[0]]["attention"]["query"]["adapter"] == {
        "a": ("layers", "embed", "rank"),
        "b": ("layers", "rank", "heads", "head"),
    }
    assert frozen == build(CONFIGS[kind], VOCABULARY).logical_axes()


@pytest.mark.parametrize(
    ("targets", "wrong"),
    [
        ("atention", "matches nothing"),
        ("query|embedding", "matches embedding, not linear"),
        ("attention_norm", "not linear"),
        ("attention.quer", "matches nothing"),
    ],
)
def test_an_expression_that_names_no_linear_map_lists_them(targets: str, wrong: str) -> None:
    with pytest.raises(UserError, match=r"config\.lora\.targets") as caught:
        adapted("decoder", targets=targets)
    assert wrong in str(caught.value)
    assert "the linear maps are head, layers.attention.key, " in str(caught.value)


def test_the_scaling_is_alpha_by_the_rank_or_by_its_root() -> None:
    assert lora(rank=4, alpha=8.0).scaling == 2
    assert lora(rank=4, alpha=8.0, rank_stabilized=True).scaling == 4


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"rank": 0}, "greater than 0"), ({"targets": "("}, "not a regular expression")],
)
def test_fields_that_mean_nothing_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        lora(**fields)


def test_a_rank_above_that_of_all_matrices_is_refused() -> None:
    sides = [part.sides for part in adapted("decoder", rank=1).adapted_linear_maps.values()]
    most = max(map(min, sides))
    assert adapted("decoder", rank=most).abstract()
    message = rf"config\.lora\.rank: {most + 1}: no matrix has it: \S+, the largest, is .*; give at most {most}"
    with pytest.raises(UserError, match=message):
        adapted("decoder", rank=most + 1).abstract()


def test_a_network_without_lora_has_no_adapters_and_no_frozen_base(kind: str) -> None:
    network = build(CONFIGS[kind], VOCABULARY, None)
    assert network.adapted_linear_maps == {}
    assert network.split(network.abstract()) == (network.abstract(), None)


def test_an_int8_channel_is_off_by_half_a_step_at_most() -> None:
    kernel = jax.random.normal(jax.random.key(0), (2, 6, 3, 5)) * jnp.array([1.0, 100.0])[:, None, None, None]
    held = jax.jit(quantize, static_argnums=1)(kernel, (1,))
    assert held.qvalue.dtype == jnp.int8
    assert held.scale.shape == (2, 1, 3, 5)
    assert jnp.all(jnp.abs(dequantize(held, jnp.float32) - kernel) <= 0.5001 * held.scale)
    np.testing.assert_allclose(held.scale[:, 0], jnp.abs(kernel).max(axis=1) / 127.5, rtol=1e-6)


def test_the_frozen_base_is_held_in_fewer_bytes(kind: str, params: Params, applied: np.ndarray) -> None:
    """Matrices of layers as int8, the embedding and the head as bfloat16; norms and adapters stay fp32."""
    whole = with_random_adapters(adapted(kind), params)
    for base_dtype in ("bfloat16", "int8"):
        network = adapted(kind, base_dtype=base_dtype)
        held = jax.jit(network.cast_base)(whole)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), held) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), network.abstract()
        )
        check_kinds(held, base_dtype)
    off = np.abs(logits(network, kind, held) - applied)
    assert 0 < off.max() < 0.1 * np.abs(applied).max()


def check_kinds(held: Params, base_dtype: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(held, is_leaf=lambda node: hasattr(node, "shape")):
        name = ".".join(key.key for key in path)
        in_layer = name.split(".")[0] in ("layers", "encoder", "decoder")
        if "adapter" in name or "norm" in name or "bias" in name:
            assert leaf.dtype == jnp.float32
        elif in_layer and base_dtype == "int8":
            assert isinstance(leaf, qwix.QArray)
        else:
            assert leaf.dtype == jnp.bfloat16


def test_cached_decoding_with_adapters_on_an_int8_base_equals_the_full_forward_pass(kind: str, params: Params) -> None:
    network = adapted(kind, base_dtype="int8")
    held = jax.jit(network.cast_base)(with_random_adapters(network, params))
    prompts = [tokens(1, 3), tokens(2, 7)]
    answers = greedy(network, held, prompts, steps=8)
    if kind == "t5":
        batch = pack_pairs([[pair] for pair in zip(prompts, answers, strict=True)], LENGTH)
    else:
        batch = pack([[np.concatenate(both)] for both in zip(prompts, answers, strict=True)], LENGTH)
    expected = np.asarray(compiled(network)(held, batch)).argmax(-1)
    for prompt, answer, row in zip(prompts, answers, expected, strict=True):
        start = 0 if kind == "t5" else len(prompt) - 1
        np.testing.assert_array_equal(row[start : start + 8], answer)


def test_parameters_are_counted(kind: str) -> None:
    plain = build(CONFIGS[kind], VOCABULARY).parameter_counts()
    assert plain["trained"] == plain["total"]
    network = adapted(kind, base_dtype="int8")
    counts = network.parameter_counts()
    adapters, _ = network.split(network.abstract())
    assert counts["trained"] == sum(leaf.size for leaf in jax.tree.leaves(adapters))
    assert counts["total"] == plain["total"] + counts["trained"]
