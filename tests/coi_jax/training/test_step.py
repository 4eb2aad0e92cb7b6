import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.data.batches import Pair, fill
from coi_jax.data.row_shape import RowShape
from coi_jax.models import Network, Params
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from coi_jax.training import step as train_step
from tests.helpers import tiny_models
from tests.helpers.tiny_models import Trained, batch, mesh, network

BATCHES = 3
# What the families add to a decoder, all at once; and fewer key-value heads than the mesh below divides heads into.
SWITCHES: dict[str, Any] = {
    "model__layers": 3,
    "model__kv_heads": 2,
    "model__window": 5,
    "model__global_layer_interval": 3,
    "model__qk_norm": True,
    "model__qkv_bias": True,
    "model__norm_placement": "sandwich",
    "model__norm_offset": 1,
    "model__scaled_embedding": True,
    "model__tied_embedding": True,
    "model__attention_softcap": 20.0,
    "model__logits_softcap": 10.0,
}
MESHES = [
    ("decoder", {"fsdp": 2}),
    ("decoder", {"replica": 2, "tensor": 2, "sequence": 2}),
    ("decoder", {"replica": 2, "fsdp": 2, "tensor": 2}),
    ("switches", {"tensor": 4, "sequence": 2}),
    ("t5", {"fsdp": 2, "tensor": 2, "sequence": 2}),
]


def make(kind: str) -> Network:
    return network(**SWITCHES) if kind == "switches" else network(kind)


def on_device(one: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(array) for name, array in one.items()}


@functools.cache
def on_one_device(kind: str, optimizer: str = "adamw") -> tuple[list[float], object]:
    trained = Trained(make(kind), mesh(), tiny_models.OPTIMIZERS[optimizer])
    return trained.run([batch(kind, seed) for seed in range(BATCHES)]), jax.device_get(trained.state.params)


@pytest.mark.parametrize(("kind", "axes"), MESHES)
def test_any_mesh_gives_what_one_device_gives(kind: str, axes: dict[str, int]) -> None:
    trained = Trained(make(kind), mesh(**axes))
    losses = trained.run([batch(kind, seed) for seed in range(BATCHES)])
    expected, params = on_one_device(kind)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    tiny_models.assert_close(jax.device_get(trained.state.params), params, 1e-4)  # Adam magnifies a difference


ADAPTED = [
    ("decoder", "int8", {"replica": 2, "fsdp": 2, "tensor": 2}),
    ("t5", "float32", {"fsdp": 2, "tensor": 2, "sequence": 2}),
]


@pytest.mark.parametrize(("kind", "base_dtype", "axes"), ADAPTED)
def test_adapters_are_trained_alone_and_alike_on_any_mesh(kind: str, base_dtype: str, axes: dict[str, int]) -> None:
    net = network(kind, lora__rank=2, lora__dropout=0.1, lora__base_dtype=base_dtype)
    batches = [batch(kind, seed) for seed in range(BATCHES)]
    one, eight = Trained(net, mesh()), Trained(net, mesh(**axes))
    base, adapters = jax.device_get(one.state.frozen), jax.device_get(one.state.params)
    np.testing.assert_allclose(eight.run(batches), one.run(batches), rtol=1e-5)
    tiny_models.assert_close(jax.device_get(eight.state.params), jax.device_get(one.state.params), 1e-4)
    for trained in (one, eight):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(trained.state.frozen), base)
    moved = jax.tree.map(lambda now, then: not np.array_equal(now, then), one.state.params, adapters)
    assert jax.tree.all(moved)
    moments = one.state.opt_state[1]
    first, second, whole = map(tiny_models.structure, (moments.mu, moments.nu, adapters))
    assert first == second == whole
    assert eight.state.frozen is not None
    query = eight.state.frozen[{"decoder": "layers", "t5": "encoder"}[kind]]["attention"]["query"]["kernel"]
    for part in jax.tree.leaves(query):  # [layers, embed, heads, head]; a quantised one's scales have no embed
        halves = tuple(1 if size == 1 else 2 for size in part.shape[1:3])
        assert part.sharding.shard_shape(part.shape)[1:3] == tuple(np.array(part.shape[1:3]) // halves)


def test_adafactor_gives_the_same_on_any_mesh() -> None:
    trained = Trained(network(), mesh(fsdp=2, tensor=2), tiny_models.OPTIMIZERS["adafactor"])
    losses = trained.run([batch(seed=seed) for seed in range(BATCHES)])
    np.testing.assert_allclose(losses, on_one_device("decoder", "adafactor")[0], rtol=1e-5)


@pytest.mark.parametrize(("microbatches", "axes"), [(8, {}), (4, {"fsdp": 2})])
def test_microbatches_give_what_one_batch_gives(microbatches: int, axes: dict[str, int]) -> None:
    trained = Trained(network(), mesh(**axes), microbatches=microbatches)
    losses = trained.run([batch(seed=seed) for seed in range(BATCHES)])
    expected, params = on_one_device("decoder")
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    tiny_models.assert_close(jax.device_get(trained.state.params), params, 1e-4)


def test_the_loss_is_the_sum_over_tokens_by_the_tokens_of_the_whole_batch() -> None:
    one = batch()
    one["weights"][0] = 0  # rows now differ in their number of targets
    one["weights"][1] = 1
    net = network()
    params = net.init(jax.random.key(0))
    rows = on_device(one)
    sums, gradient = jax.jit(lambda params: train_step.accumulate(net, params, None, rows, 4, None))(params)
    whole = jax.jit(jax.grad(lambda params: net.loss(params, rows).loss))(params)
    assert sums.tokens == one["weights"].sum()
    tiny_models.assert_close(gradient, whole, 1e-5)


def by_step(kind: str, scale: float = 1.0) -> dict[str, np.ndarray]:
    """A batch whose targets have weights of several steps, one of them 0."""
    one = batch(kind)
    steps = np.random.default_rng(0).choice([0.0, 0.25, 2.0], one["weights"].shape)
    return one | {"weights": (scale * one["weights"] * steps).astype(np.float32)}


@pytest.mark.parametrize(
    ("kind", "chunk", "microbatches"),
    [("decoder", None, 1), ("decoder", 5, 4), ("t5", None, 4)],
)
def test_the_loss_by_step_is_the_mean_by_the_weights_of_the_targets(
    kind: str, chunk: int | None, microbatches: int
) -> None:
    net, rows = network(kind, model__loss_chunk=chunk), on_device(by_step(kind))
    params = net.init(jax.random.key(0))
    weights = np.asarray(rows["weights"])
    most = max(int((weights[part::microbatches] != 0).sum()) for part in range(microbatches))

    def mean(params: Params) -> jax.Array:
        logs = jax.nn.log_softmax(net.logits(params, rows).astype(jnp.float32))
        losses = -jnp.take_along_axis(logs, rows["targets"][:, :, None], axis=-1)[:, :, 0]
        found: jax.Array = jnp.sum(losses * weights) / weights.sum()
        return found

    def sums_of(capacity: int) -> Any:
        return train_step.accumulate(net, params, None, rows, microbatches, None, target_capacity=capacity)

    sums, gradient = jax.jit(sums_of, static_argnums=0)(most)
    loss, expected = jax.jit(jax.value_and_grad(mean))(params)
    lost, _ = jax.jit(sums_of, static_argnums=0)(most - 1)
    np.testing.assert_allclose(sums.tokens, weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(sums.loss / sums.tokens, loss, rtol=1e-5)
    tiny_models.assert_close(jax.tree.map(lambda leaf: leaf / sums.tokens, gradient), expected, 1e-5)
    assert np.isnan(lost.loss)


@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_weights_count_in_proportion_to_one_another_alone(kind: str) -> None:
    """Also where their sum is below 1."""
    small, large = Trained(network(kind), mesh()), Trained(network(kind), mesh(fsdp=2))
    np.testing.assert_allclose(small.run([by_step(kind, 1e-4)]), large.run([by_step(kind)]), rtol=1e-5)
    tiny_models.assert_close(jax.device_get(small.state.params), jax.device_get(large.state.params), 1e-4)


@pytest.mark.parametrize("shape", [RowShape(16, 0, 0), RowShape(16, 16, 0)], ids=["decoder", "t5"])
def test_packed_examples_have_the_loss_by_step_of_each_alone(shape: RowShape) -> None:
    random = np.random.default_rng(0)
    pairs: list[Pair] = [
        (random.integers(3, 30, 3).astype(np.int32), random.integers(3, 30, size).astype(np.int32))
        for size in (4, 2, 5)
    ]
    weights = [random.choice([0.0, 0.5, 3.0], len(targets)).astype(np.float32) for _, targets in pairs]
    packed = fill([pairs[:2], pairs[2:]], shape, ByteVocabulary(), [weights[:2], weights[2:]])
    alone = fill([[pair] for pair in pairs], shape, ByteVocabulary(), [[each] for each in weights])
    net = network("t5" if shape.targets_length else "decoder")
    params = net.init(jax.random.key(0))
    sums = [jax.jit(net.loss)(params, on_device(rows)) for rows in (packed, alone)]
    tiny_models.assert_close(sums[0], sums[1], 1e-5)
    assert sums[0].tokens == sum(each.sum() for each in weights) > 0


def test_a_batch_without_targets_is_no_division_by_zero() -> None:
    one = batch()
    one["weights"][:] = 0
    assert Trained(network(), mesh()).run([one]) == [0.0]


def test_steps_learn_and_compile_once() -> None:
    trained = Trained(network(), mesh(fsdp=4, tensor=2))
    losses = trained.run([batch()] * 8)
    assert losses[-1] < losses[0] - 0.5
    assert trained.step._cache_size() == 1  # type: ignore[attr-defined]
    assert int(trained.state.step) == 8


def test_every_leaf_stays_where_it_belongs() -> None:
    trained = Trained(network(), mesh(fsdp=2, tensor=2))
    trained.run([batch()])
    places = jax.tree.map(lambda leaf: leaf.sharding, trained.state)
    assert jax.tree.all(
        jax.tree.map(lambda a, b, leaf: a.is_equivalent_to(b, leaf.ndim), places, trained.shardings, trained.state)
    )
    moments = trained.state.opt_state[1].mu
    assert moments["layers"]["mlp"]["up"]["kernel"].sharding.shard_shape((2, 16, 32)) == (2, 8, 16)


def test_dropout_differs_by_step_and_by_seed_and_is_repeatable() -> None:
    net = network(model__dropout=0.5)
    params = net.init(jax.random.key(0))

    rows = on_device(batch())

    @jax.jit
    def sums(params: Params, key: jax.Array) -> jax.Array:
        return train_step.accumulate(net, params, None, rows, 2, key)[0].loss

    def loss(seed: int, step: int) -> float:
        return float(sums(params, jax.random.fold_in(jax.random.key(seed), step)))

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(0, 2), loss(1, 1)}) == 3


def test_bfloat16_computes_over_float32_parameters() -> None:
    trained = Trained(network(model__dtype="bfloat16"), mesh())
    losses = trained.run([batch(seed=seed) for seed in range(BATCHES)])
    np.testing.assert_allclose(losses, on_one_device("decoder")[0], rtol=2e-2)
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.state.params)} == {np.dtype("float32")}
