"""The loss at the positions that have one against the loss over all positions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.models import Network
from coi_jax.models.target_positions import keep_targets
from coi_jax.parallel import sharding
from tests.helpers import tiny_models

ROWS = 4


def place(mesh: jax.sharding.Mesh | None, kind: str) -> dict[str, jax.Array]:
    batch = tiny_models.batch(kind, rows=ROWS)
    placed: dict[str, jax.Array] = jax.device_put(batch, sharding.batch_sharding(mesh) if mesh else None)
    return placed


def most_of_a_device(batch: dict[str, Any], data_parts: int, length_parts: int) -> int:
    weights = np.asarray(batch["weights"])
    parts = weights.reshape(data_parts, ROWS // data_parts, length_parts, -1)
    return int(parts.sum((1, 3)).max())


def loss_and_gradients(network: Network, batch: dict[str, jax.Array], capacity: int | None) -> Any:
    params = network.init(jax.random.key(0))

    def loss(params: Any) -> Any:
        sums = network.loss(params, batch, target_capacity=capacity)
        return sums.loss, sums

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize(
    ("kind", "axes", "chunk", "tied"),
    [
        ("decoder", {}, None, True),
        ("decoder", {}, 5, False),
        ("t5", {}, None, False),
        ("decoder", {"fsdp": 2, "tensor": 2, "sequence": 2}, None, False),
        ("decoder", {"fsdp": 2, "tensor": 2, "sequence": 2}, 3, True),
        ("decoder", {"replica": 2, "fsdp": 2}, None, True),
        ("t5", {"fsdp": 2, "tensor": 2}, 7, True),
    ],
    ids=str,
)
def test_positions_without_a_target_change_nothing(
    kind: str, axes: dict[str, int], chunk: int | None, tied: bool
) -> None:
    network = tiny_models.network(kind, model__loss_chunk=chunk, model__tied_embedding=tied)
    mesh = tiny_models.mesh(**axes) if axes else None
    batch = place(None, kind)
    expected = loss_and_gradients(network, batch, None)
    parts = sharding.batch_parts(mesh) if mesh else (1, 1)
    capacity = most_of_a_device(batch, *parts)
    if mesh is None:
        found = loss_and_gradients(network, batch, capacity)
    else:
        with jax.set_mesh(mesh):
            found = loss_and_gradients(network, place(mesh, kind), capacity)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)


def test_targets_beyond_the_capacity_are_no_number() -> None:
    network, batch = tiny_models.network(), place(None, "decoder")
    targets = int(batch["weights"].sum())
    params = network.init(jax.random.key(0))
    assert np.isfinite(network.loss(params, batch, target_capacity=targets).loss)
    assert np.isnan(network.loss(params, batch, target_capacity=targets - 1).loss)


def test_targets_come_in_their_order_and_padding_after_them() -> None:
    hidden = jnp.arange(12.0).reshape(2, 6, 1)
    targets, weights = jnp.arange(12).reshape(2, 6), jnp.asarray([[0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0]])
    kept_hidden, kept_targets, kept_weights = keep_targets(hidden, targets, weights, 4)
    assert kept_targets[0, :3].tolist() == kept_hidden[0, :3, 0].tolist() == [1, 4, 6]
    assert kept_weights.tolist() == [[1, 1, 1, 0]]


def test_a_capacity_of_all_positions_keeps_the_arrays() -> None:
    batch = place(None, "decoder")
    hidden = jnp.zeros((*batch["targets"].shape, 2))
    for capacity in (None, batch["targets"].size):
        kept = keep_targets(hidden, batch["targets"], batch["weights"], capacity)
        assert kept[0] is hidden
        assert kept[1] is batch["targets"]


def test_logits_are_computed_for_the_targets_alone() -> None:
    network, batch = tiny_models.network(model__vocabulary_size=2048), place(None, "decoder")
    params, size = network.abstract(), batch["targets"].size

    def operations(capacity: int | None) -> float:
        def loss(params: Any) -> jax.Array:
            return network.loss(params, batch, target_capacity=capacity).loss

        analysis = jax.jit(jax.grad(loss)).lower(params).compile().cost_analysis()
        assert analysis is not None
        return float(analysis["flops"])

    head = 6 * 2048 * network.config.model_dim
    assert operations(None) - operations(size // 4) > 0.9 * head * size * 3 / 4
