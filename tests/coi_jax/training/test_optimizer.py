import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coi_jax.training.optimizer import decay_mask, make_optimizer, make_schedule
from tests.helpers import tiny_models

AXES = {"kernel": ("embed", "mlp"), "scale": (None,)}
PARAMS = {"kernel": jnp.full((4, 4), 2.0), "scale": jnp.ones(4)}


def rates(steps: int = 10, **fields: object) -> np.ndarray:
    config = tiny_models.OPTIMIZER.model_copy(update={"learning_rate": 1.0, **fields})
    return np.asarray(jax.vmap(make_schedule(config, steps))(jnp.arange(steps)))


def test_the_rate_rises_to_its_peak_and_falls_linearly_without_a_wasted_step() -> None:
    np.testing.assert_allclose(rates(warmup_ratio=0.2), [0.5, 1, 1, *(np.arange(7, 0, -1) / 8)], rtol=1e-6)


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates(warmup_ratio=0.0)[0] == 1


def test_the_cosine_falls_and_the_constant_stays() -> None:
    cosine = rates(schedule="cosine", warmup_ratio=0.0)
    np.testing.assert_allclose(cosine, 0.5 + 0.5 * np.cos(np.pi * np.arange(10) / 10), atol=1e-6)
    np.testing.assert_array_equal(rates(schedule="constant", warmup_ratio=0.1), np.ones(10))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_one_step_is_a_schedule_too(schedule: str) -> None:
    assert rates(steps=1, schedule=schedule, warmup_ratio=0.03) == [1]


@pytest.mark.parametrize(
    ("kind", "fields"), [("decoder", {"model__qkv_bias": True}), ("t5", {}), ("t5", {"lora__rank": 2})]
)
def test_only_matrices_are_decayed(kind: str, fields: dict[str, object]) -> None:
    mask = decay_mask(tiny_models.network(kind, **fields).logical_axes())
    for path, decayed in jax.tree_util.tree_leaves_with_path(mask):
        name = jax.tree_util.keystr(path)
        assert decayed == any(part in name for part in ("kernel", "embedding", "adapter")), name


def update(gradient: float, **fields: object) -> dict[str, jax.Array]:
    config = tiny_models.OPTIMIZER.model_copy(update=fields)
    optimizer = make_optimizer(config, lambda _: jnp.asarray(0.1), AXES)
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), PARAMS)
    return optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)[0]


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_decay_is_rate_times_decay_times_weight(name: str) -> None:
    decayed, plain = update(1.0, name=name, weight_decay=0.5), update(1.0, name=name, weight_decay=0.0)
    np.testing.assert_allclose(decayed["kernel"] - plain["kernel"], -0.1 * 0.5 * 2.0, rtol=1e-5)
    np.testing.assert_array_equal(decayed["scale"], plain["scale"])


def test_adamw_is_optax_adamw() -> None:
    mine = update(0.01, weight_decay=0.3, clip_norm=0.0)
    reference = optax.adamw(0.1, 0.9, 0.99, 1e-6, weight_decay=0.3, mask={"kernel": True, "scale": False})
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.01), PARAMS)
    theirs = reference.update(gradients, reference.init(PARAMS), PARAMS)[0]
    tiny_models.assert_close(mine, theirs, 1e-6)


def test_clipping_makes_the_size_of_a_large_gradient_indifferent() -> None:
    fields = {"weight_decay": 0.0, "clip_norm": 1.0, "epsilon": 0.1}
    tiny_models.assert_close(update(100.0, **fields), update(1000.0, **fields), 1e-6)
    assert abs(update(1000.0, **fields | {"clip_norm": 0.0})["kernel"][0, 0]) > abs(
        update(1000.0, **fields)["kernel"][0, 0]
    )
