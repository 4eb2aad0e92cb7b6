import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax import flops
from tests import stand_ins


def count(kind: str = "decoder") -> flops.Work:
    return flops.count_work(jax.tree.map(jnp.asarray, stand_ins.batch(kind, rows=3)))


def test_padding_and_other_examples_are_no_work() -> None:
    work = jax.device_get(count())
    assert work.examples == 3 * 2
    assert work.tokens == 3 * 14
    assert work.pairs == 3 * (6 * 7 / 2 + 8 * 9 / 2)  # causal
    assert work.encoder_tokens == work.encoder_pairs == work.cross_pairs == 0


def test_both_sides_of_a_t5_are_counted() -> None:
    work = jax.device_get(count("t5"))
    assert work.encoder_tokens == work.tokens == 3 * 14
    assert work.encoder_pairs == work.cross_pairs == 3 * (6 * 6 + 8 * 8)


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_counts_once_and_only_as_head(tied: bool) -> None:
    network = stand_ins.network(model__tied_embedding=tied)
    layer = 4 * 16 * 16 + 3 * 16 * 32
    assert flops.costs(network).token == 2 * layer + stand_ins.VOCABULARY * 16 + NORMS


NORMS = 5 * 16  # two a layer and the last


def test_a_t5_splits_its_matrices_by_the_tokens_they_meet() -> None:
    costs = flops.costs(stand_ins.network("t5"))
    attention, mlp = 4 * 16 * 16, 3 * 16 * 32
    encoder = attention + mlp + 2 * attention / 2  # its layer, and keys and values of two decoder layers
    decoder = 2 * (attention + attention / 2 + mlp) + 16 * stand_ins.VOCABULARY
    assert costs.encoder_token == pytest.approx(encoder, abs=100)  # norms and biases besides
    assert costs.token == pytest.approx(decoder, abs=200)


def test_operations_are_six_a_weight_and_token_and_twelve_a_channel_and_pair() -> None:
    work = flops.Work(*(np.float32(n) for n in (1, 10, 20, 30, 40, 50)))
    costs = flops.Costs(token=2, encoder_token=3, pair=5, encoder_pair=7)
    assert flops.model_flops(work, costs) == 6 * (2 * 10 + 3 * 20) + 5 * (30 + 50) + 7 * 40
