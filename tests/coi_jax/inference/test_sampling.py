import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.inference import sampling

LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))


def test_greedy_takes_the_likeliest_and_of_equals_the_first() -> None:
    np.testing.assert_array_equal(sampling.greedy(jnp.array([[0.0, 2.0, 2.0], [1.0, 0.0, 0.0]])), [1, 0])


@pytest.mark.parametrize(("top_p", "kept"), [(1e-300, 1), (0.4, 1), (0.6, 2), (0.8, 2), (0.81, 3), (1.0, 4)])
def test_nucleus_is_the_fewest_tokens_that_reach_top_p(top_p: float, kept: int) -> None:
    finite = np.isfinite(sampling.nucleus(LOGITS, top_p))
    np.testing.assert_array_equal(finite.sum(axis=1), [kept, kept])
    np.testing.assert_array_equal(finite[0], finite[1, ::-1])
    assert finite[0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_must_be_finite_to_be_chosen_from(bad: float) -> None:
    masked = LOGITS.at[0, 1].set(-np.inf)  # as a network masks what its vocabulary has no token for
    np.testing.assert_array_equal(sampling.are_finite(masked), [True, True])
    np.testing.assert_array_equal(sampling.are_finite(masked.at[1, 2].set(bad)), [True, False])


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, [10 / 19, 6 / 19, 3 / 19, 0]), (0.5, [25 / 34, 9 / 34, 0, 0])]
)
def test_draws_follow_the_distribution(temperature: float, expected: list[float]) -> None:
    rows = 4000
    keys = sampling.row_keys(0, jnp.arange(rows, dtype=jnp.uint32))
    drawn = sampling.sample(jnp.tile(LOGITS[:1], (rows, 1)), keys, temperature, top_p=0.9)
    shares = np.bincount(drawn, minlength=4) / rows
    np.testing.assert_allclose(shares, expected, atol=0.03)


def keys_of(seed: int, ids: list[str]) -> list[list[int]]:
    hashes = jnp.asarray([sampling.id_hash(id) for id in ids], jnp.uint32)
    found: list[list[int]] = jax.random.key_data(sampling.row_keys(seed, hashes)).tolist()
    return found


def test_a_key_belongs_to_its_example_alone() -> None:
    assert keys_of(3, ["b"])[0] == keys_of(3, ["a", "b", "c"])[1]
    assert keys_of(3, ["b"]) != keys_of(4, ["b"])


def test_every_step_draws_anew() -> None:
    keys = jnp.repeat(sampling.row_keys(0, jnp.asarray([7], jnp.uint32)), 5)
    draws = jax.random.key_data(sampling.at_steps(keys, jnp.arange(5)))
    assert len(set(map(tuple, draws.tolist()))) == 5
