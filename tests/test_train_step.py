import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax import train_step
from coi_jax.models import Params
from tests import stand_ins
from tests.stand_ins import Trained, batch, mesh, network

BATCHES = 3
MESHES = [
    ("decoder", {"fsdp": 2}),
    ("decoder", {"tensor": 2, "sequence": 2}),
    ("decoder", {"replica": 2, "fsdp": 2, "tensor": 2}),
    ("t5", {"fsdp": 2, "tensor": 2, "sequence": 2}),
]


def on_device(one: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return jax.tree.map(jnp.asarray, one)


@functools.cache
def on_one_device(kind: str, optimizer: str = "adamw") -> tuple[list[float], object]:
    config = stand_ins.OPTIMIZER.model_copy(update={"name": optimizer})
    trained = Trained(network(kind), mesh(), config)
    return trained.run([batch(kind, seed) for seed in range(BATCHES)]), jax.device_get(trained.state.params)


@pytest.mark.parametrize(("kind", "axes"), MESHES)
def test_any_mesh_gives_what_one_device_gives(kind: str, axes: dict[str, int]) -> None:
    trained = Trained(network(kind), mesh(**axes))
    losses = trained.run([batch(kind, seed) for seed in range(BATCHES)])
    expected, params = on_one_device(kind)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    stand_ins.assert_close(jax.device_get(trained.state.params), params, 1e-4)  # Adam magnifies a difference


def test_adafactor_gives_the_same_on_any_mesh() -> None:
    config = stand_ins.OPTIMIZER.model_copy(update={"name": "adafactor"})
    trained = Trained(network(), mesh(fsdp=2, tensor=2), config)
    losses = trained.run([batch(seed=seed) for seed in range(BATCHES)])
    np.testing.assert_allclose(losses, on_one_device("decoder", "adafactor")[0], rtol=1e-5)


@pytest.mark.parametrize(("microbatches", "axes"), [(8, {}), (4, {"fsdp": 2})])
def test_microbatches_give_what_one_batch_gives(microbatches: int, axes: dict[str, int]) -> None:
    trained = Trained(network(), mesh(**axes), microbatches=microbatches)
    losses = trained.run([batch(seed=seed) for seed in range(BATCHES)])
    expected, params = on_one_device("decoder")
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    stand_ins.assert_close(jax.device_get(trained.state.params), params, 1e-4)


def test_the_loss_is_the_sum_over_tokens_by_the_tokens_of_the_whole_batch() -> None:
    one = batch()
    one["weights"][0] = 0  # rows now differ in their number of targets
    one["weights"][1] = 1
    net = network()
    params = net.init(jax.random.key(0))
    rows = on_device(one)
    with stand_ins.quick_compilation():
        sums, gradient = jax.jit(lambda params: train_step.accumulate(net, params, None, rows, 4, None))(params)
        whole = jax.jit(jax.grad(lambda params: net.loss(params, rows).loss))(params)
    assert sums.tokens == one["weights"].sum()
    stand_ins.assert_close(gradient, whole, 1e-5)


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
    assert jax.tree.all(jax.tree.map(lambda a, b, leaf: a.is_equivalent_to(b, leaf.ndim), places, trained.shardings,
                                     trained.state))  # fmt: skip
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
        with stand_ins.quick_compilation():
            return float(sums(params, jax.random.fold_in(jax.random.key(seed), step)))

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(0, 2), loss(1, 1)}) == 3


def test_bfloat16_computes_over_float32_parameters() -> None:
    trained = Trained(network(model__dtype="bfloat16"), mesh())
    losses = trained.run([batch(seed=seed) for seed in range(BATCHES)])
    np.testing.assert_allclose(losses, on_one_device("decoder")[0], rtol=2e-2)
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.state.params)} == {np.dtype("float32")}
