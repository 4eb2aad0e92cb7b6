import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coi_jax.common.errors import UserError
from coi_jax.training.optimizer import OPTIMIZERS, SCHEDULES, check_optimizer, decay_mask, make_optimizer, make_schedule
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


def closed_form(schedule: str, steps: int, warmup_ratio: float) -> np.ndarray:
    """The rate of every step for a peak of 1."""
    warmup = math.ceil(warmup_ratio * steps)
    step = np.arange(steps)
    done = np.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
    falling = {"linear": 1 - done, "cosine": 0.5 * (1 + np.cos(np.pi * done)), "constant": np.ones(steps)}[schedule]
    return np.where(step < warmup, (step + 1) / max(warmup, 1), falling)


@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.03, 0.5, 0.99])
def test_schedules_have_the_values_of_their_closed_forms(schedule: str, warmup_ratio: float) -> None:
    for steps in (1, 2, 3, 37, 1000):
        found = rates(steps, schedule=schedule, warmup_ratio=warmup_ratio)
        np.testing.assert_allclose(found, closed_form(schedule, steps, warmup_ratio), rtol=0, atol=2e-7)
        assert found.min() > 0


def test_a_schedule_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "root", lambda peak, steps: lambda step: peak / jnp.sqrt(1.0 + step))
    np.testing.assert_allclose(rates(3, schedule="root", warmup_ratio=0.0), 1 / np.sqrt([1, 2, 3]), rtol=1e-6)


def test_an_optimizer_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, "lion", lambda *, b1, b2: optax.scale_by_lion(b1, b2))
    found = update(0.3, name="lion", options={"b1": 0.9, "b2": 0.99}, weight_decay=0.0)
    np.testing.assert_allclose(found["kernel"], -0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "adam"}, r"^config\.optimizer\.name: adam: unknown; did you mean 'adamw'\?$"),
        ({"name": "sgd"}, r"^config\.optimizer\.name: sgd: unknown; one of adamw, adafactor$"),
        ({"schedule": "cosin"}, r"^config\.optimizer\.schedule: cosin: unknown; did you mean 'cosine'\?$"),
        ({"options": {"b1": 0.9, "b2": 0.99}}, r"^config\.optimizer\.options\.epsilon: missing: is an option of adamw"),
        (
            {"options": {"b1": 0.9, "b2": 0.99, "epsilon": 1e-8, "b": 1.0}},
            r"^config\.optimizer\.options\.b: 1\.0: unknown; did you mean",
        ),
        ({"options": {"b1": 0.9, "b2": 1.0, "epsilon": 1e-8}}, r"options\.b2: 1\.0: should be at least 0 and below 1$"),
        (
            {"options": {"b1": -0.1, "b2": 0.9, "epsilon": 1e-8}},
            r"options\.b1: -0\.1: should be at least 0 and below 1$",
        ),
        ({"options": {"b1": 0.9, "b2": 0.9, "epsilon": -1.0}}, r"options\.epsilon: -1\.0: should be at least 0$"),
        ({"name": "adafactor"}, r"^config\.optimizer\.options\.b1: 0\.9: adafactor has no options; set .* to \{\}$"),
    ],
)
def test_unknown_names_and_options_are_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_optimizer(tiny_models.OPTIMIZER.model_copy(update=fields))


def update(gradient: float, **fields: object) -> dict[str, jax.Array]:
    config = tiny_models.OPTIMIZER.model_copy(update=fields)
    optimizer = make_optimizer(config, lambda _: jnp.asarray(0.1), AXES)
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), PARAMS)
    updates: dict[str, jax.Array] = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)[0]
    return updates


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_decay_is_rate_times_decay_times_weight(name: str) -> None:
    fields = {"name": name, "options": tiny_models.OPTIMIZER.options if name == "adamw" else {}}
    decayed, plain = update(1.0, **fields, weight_decay=0.5), update(1.0, **fields, weight_decay=0.0)
    np.testing.assert_allclose(decayed["kernel"] - plain["kernel"], -0.1 * 0.5 * 2.0, rtol=1e-5)
    np.testing.assert_array_equal(decayed["scale"], plain["scale"])


def test_adamw_is_optax_adamw() -> None:
    mine = update(0.01, weight_decay=0.3, clip_norm=None)
    reference = optax.adamw(0.1, 0.9, 0.99, 1e-6, weight_decay=0.3, mask={"kernel": True, "scale": False})
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.01), PARAMS)
    theirs = reference.update(gradients, reference.init(PARAMS), PARAMS)[0]
    tiny_models.assert_close(mine, theirs, 1e-6)


def test_clipping_makes_the_size_of_a_large_gradient_indifferent() -> None:
    fields = {"weight_decay": 0.0, "clip_norm": 1.0, "options": {"b1": 0.9, "b2": 0.99, "epsilon": 0.1}}
    tiny_models.assert_close(update(100.0, **fields), update(1000.0, **fields), 1e-6)
    assert abs(update(1000.0, **fields | {"clip_norm": None})["kernel"][0, 0]) > abs(
        update(1000.0, **fields)["kernel"][0, 0]
    )
