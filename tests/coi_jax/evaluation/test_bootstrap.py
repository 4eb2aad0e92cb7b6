import numpy as np

from coi_jax.evaluation.bootstrap import bootstrap


def test_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = bootstrap(rng.normal(size=(80, 1)), 300, seed)
        covered += bool(low[0] <= 0 <= high[0])
    assert 0.90 <= covered / 200 <= 0.98


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(1).random((30, 2))
    first, again, other = (bootstrap(values, 100, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_absent_scores_do_not_count() -> None:
    values = np.random.default_rng(2).random((40, 1))
    padded = np.concatenate([values, np.full((3, 1), np.nan)])
    low, high = bootstrap(padded, 500, 0)
    assert low[0] < np.mean(values) < high[0]
    assert not np.isnan([low, high]).any()


def test_constant_has_no_width() -> None:
    low, high = bootstrap(np.ones((10, 1)), 50, 0)
    np.testing.assert_allclose([low[0], high[0]], 1)


def test_narrows_with_more_examples() -> None:
    rng = np.random.default_rng(3)
    few, many = (np.subtract(*bootstrap(rng.random((n, 1)), 500, 0))[0] for n in (20, 2000))
    assert abs(many) < abs(few) / 5


def test_matches_plain_resampling() -> None:
    values = np.random.default_rng(4).random((50, 1))
    drawn = np.random.default_rng(5).choice(values[:, 0], size=(4000, 50)).mean(axis=1)
    low, high = bootstrap(values, 4000, 0)
    np.testing.assert_allclose([low[0], high[0]], np.percentile(drawn, [2.5, 97.5]), atol=0.01)
