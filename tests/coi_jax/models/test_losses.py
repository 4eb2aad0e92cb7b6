"""Sums of cross entropy, counts and hits."""

import jax
import jax.numpy as jnp
import numpy as np

from coi_jax.models.losses import loss_sums


def example() -> tuple[jax.Array, jax.Array, jax.Array]:
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=(4, 5, 7)).astype(np.float32)
    targets = np.where(random.random((4, 5)) < 0.5, logits.argmax(-1), 3).astype(np.int32)
    return jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(random.integers(0, 2, (4, 5)), jnp.int32)


def test_sums_are_of_weighted_positions_alone() -> None:
    logits, targets, weights = example()
    sums = loss_sums(logits, targets, weights)
    log_probabilities = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(targets)[..., None], -1)[
        ..., 0
    ]
    np.testing.assert_allclose(sums.loss, -(log_probabilities * weights).sum(), rtol=1e-6)
    assert sums.tokens == weights.sum()
    assert sums.correct == ((logits.argmax(-1) == targets) * weights).sum()


def test_parts_add_up_to_the_whole() -> None:
    whole = loss_sums(*example())
    parts = [loss_sums(*(part[row : row + 2] for part in example())) for row in (0, 2)]
    np.testing.assert_allclose(jax.tree.map(lambda *sums: sum(sums), *parts), whole, rtol=1e-6)


def test_gradient_is_probability_less_target() -> None:
    logits, targets, weights = example()
    gradient = jax.grad(lambda logits: loss_sums(logits, targets, weights).loss)(logits)
    expected = (jax.nn.softmax(logits) - jax.nn.one_hot(targets, 7)) * weights[..., None]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_ties_are_no_hits() -> None:
    zeros = jnp.zeros((1, 3, 7))
    assert loss_sums(zeros, jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3), jnp.int32)).correct == 0


def test_bfloat16_logits_are_summed_in_fp32() -> None:
    logits, targets, weights = example()
    sums = loss_sums(logits.astype(jnp.bfloat16), targets, weights)
    assert {leaf.dtype for leaf in sums} == {jnp.dtype("float32")}
    np.testing.assert_allclose(sums.loss, loss_sums(logits, targets, weights).loss, rtol=0.01)
