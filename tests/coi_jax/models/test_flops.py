import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.models import flops
from tests.helpers import tiny_models


def count(kind: str = "decoder") -> flops.Work:
    return flops.count_work(
        jax.tree.map(jnp.asarray, tiny_models.batch(kind, rows=3)), tiny_models.network(kind).config
    )


def test_padding_and_other_examples_are_no_work() -> None:
    work = jax.device_get(count())
    assert work.examples == 3 * 2
    assert work.tokens == 3 * 14
    assert work.targets == tiny_models.batch(rows=3)["weights"].sum()
    assert work.pairs == 3 * (6 * 7 / 2 + 8 * 9 / 2)  # causal
    assert work.encoder_tokens == work.encoder_pairs == work.cross_pairs == 0


@pytest.mark.parametrize(("every", "local"), [(None, 6), (3, 4)])
def test_a_window_hides_pairs_in_the_layers_that_have_one(every: int | None, local: int) -> None:
    fields = {"model__layers": 6, "model__window": 3, "model__global_layer_interval": every}
    config = tiny_models.network("decoder", **fields).config
    work = flops.count_work(jax.tree.map(jnp.asarray, tiny_models.batch(rows=1)), config)
    everywhere, nearby = 6 * 7 / 2 + 8 * 9 / 2, (1 + 2 + 3 * 4) + (1 + 2 + 3 * 6)
    np.testing.assert_allclose(work.pairs, (local * nearby + (6 - local) * everywhere) / 6, rtol=1e-6)
    np.testing.assert_allclose(flops.attention_pairs(np.array([6.0, 8.0]), config).sum(), work.pairs, rtol=1e-6)


def test_both_sides_of_a_t5_are_counted() -> None:
    work = jax.device_get(count("t5"))
    assert work.encoder_tokens == work.tokens == 3 * 14
    assert work.encoder_pairs == work.cross_pairs == 3 * (6 * 6 + 8 * 8)


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_counts_once_and_only_as_head(tied: bool) -> None:
    network = tiny_models.network(model__tied_embedding=tied)
    layer = 4 * 16 * 16 + 3 * 16 * 32
    assert flops.costs(network).token == 6 * (2 * layer + NORMS)
    assert flops.costs(network).target == 6 * tiny_models.VOCABULARY * 16


NORMS = 5 * 16  # two a layer and the last


def test_a_t5_splits_its_matrices_by_the_tokens_they_meet() -> None:
    costs = flops.costs(tiny_models.network("t5"))
    attention, mlp = 4 * 16 * 16, 3 * 16 * 32
    encoder = attention + mlp + 2 * attention / 2  # its layer, and keys and values of two decoder layers
    decoder = 2 * (attention + attention / 2 + mlp)
    assert costs.encoder_token == pytest.approx(6 * encoder, abs=600)  # norms and biases besides
    assert costs.token == pytest.approx(6 * decoder, abs=1200)
    assert costs.target == 6 * 16 * tiny_models.VOCABULARY


def lora(kind: str, targets: str) -> flops.Costs:
    return flops.costs(tiny_models.network(kind, lora__rank=2, lora__targets=targets))


def test_frozen_matrices_have_no_gradient_of_their_own() -> None:
    layer = 4 * 16 * 16 + 3 * 16 * 32
    adapters = 2 * 2 * (16 + 16)  # rank 2 beside the queries of two layers
    found, full = lora("decoder", "query"), flops.costs(tiny_models.network())
    assert found.token == 4 * (2 * layer + NORMS) + 6 * adapters
    assert found.target == 4 * tiny_models.VOCABULARY * 16
    assert found.pair == full.pair


def test_nothing_goes_backward_below_the_first_adapter() -> None:
    full = flops.costs(tiny_models.network("t5"))
    both, late = lora("t5", "mlp.up"), lora("t5", "^decoder.mlp.up")
    assert late.encoder_token * 6 == full.encoder_token * 2
    assert late.encoder_pair * 12 == full.encoder_pair * 4
    assert (late.token, late.pair) == (both.token, full.pair)
    head = lora("decoder", "head")
    assert head.pair * 12 == flops.costs(tiny_models.network()).pair * 4


def test_operations_are_those_of_tokens_and_of_pairs() -> None:
    work = flops.Work(*(jnp.asarray(n, jnp.float32) for n in (1, 10, 15, 20, 30, 40, 50)))
    costs = flops.Costs(token=2, target=11, encoder_token=3, pair=5, encoder_pair=7)
    assert flops.model_flops(work, costs) == 2 * 10 + 11 * 15 + 3 * 20 + 5 * (30 + 50) + 7 * 40
