import math

import numpy as np
import pytest
from etils import epath

from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data import token_cache
from coi_jax.data.loader import Loader
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from launch.preflight import workload
from launch.preflight.workload import Means
from tests.helpers.configs import epochs, examples
from tests.helpers.tiny_models import run_config

MEANS = Means(inputs=60, targets=40, examples=1000)


def config(**overrides: object) -> RunConfig:
    return run_config(**{"data__folder": "nowhere", "data__length": 200, **overrides})  # type: ignore[arg-type]


def test_full_rows_hold_as_many_mean_examples_as_fit() -> None:
    load = workload.measure(config(data__batch__rows=8), (4, 1), MEANS)
    assert (load.rows, load.steps) == (8, 10)
    assert load.examples == pytest.approx(8 * 2 * workload.FULL_ROWS)
    assert load.work.tokens == pytest.approx(100 * load.examples)
    assert load.work.pairs == pytest.approx(100 * 101 / 2 * load.examples)
    assert load.useful == pytest.approx(workload.FULL_ROWS)
    assert load.target_capacity == math.ceil(1.25 * load.examples * 40 / 4)


def test_counted_examples_need_rows_that_devices_share() -> None:
    counted = config(**examples(32) | epochs(3.0))
    load = workload.measure(counted, (8, 1), MEANS)
    assert (load.rows, load.examples, load.steps) == (24, 32, 94)  # 32 / 2 / 0.97 = 16.5 rows; 3000 / 32 steps
    assert load.useful == pytest.approx(32 * 100 / (24 * 200))
    assert workload.measure(counted, (8, 1), Means(60, 40, None)).steps is None


def test_a_t5_has_two_sides() -> None:
    load = workload.measure(config(kind="t5", data__targets_length=50, data__batch__rows=4), (4, 1), MEANS)
    assert load.examples == pytest.approx(4 * 50 / 40 * workload.FULL_ROWS), "the decoder's side is the fuller one"
    work = {name: value / load.examples for name, value in load.work._asdict().items()}
    assert work == pytest.approx(
        {
            "examples": 1,
            "tokens": 40,
            "targets": 40,
            "encoder_tokens": 60,
            "pairs": 820,
            "encoder_pairs": 3600,
            "cross_pairs": 2400,
        }
    )


def test_rows_that_do_not_divide_or_hold_no_example_are_mistakes() -> None:
    with pytest.raises(UserError, match=r"config\.data\.batch\.rows: 6: must be a multiple .* 4"):
        workload.measure(config(data__batch__rows=6), (4, 1), MEANS)
    with pytest.raises(UserError, match=r"config\.data\.length: 200: .*250"):
        workload.measure(config(data__batch__rows=4), (4, 1), Means(200, 50, None))


def test_caches_that_are_there_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.array([[50, 30], [20, 10], [100, 99], [300, 5]], np.int32)
    stored = [token_cache.TokenCache(epath.Path("cache"), "hash", lengths, 4.0)]
    monkeypatch.setattr(token_cache, "find", lambda config, specs: stored)
    ours = config(data__batch__rows=4, **epochs(2.0))
    load = workload.measure(ours, (4, 1), MEANS)
    loader = Loader(ours, stored, ByteVocabulary(), 4)
    assert (load.rows, load.steps) == (4, loader.total_steps)
    assert load.examples * loader.steps_per_epoch == pytest.approx(3), "one is longer than a row"
    tokens = np.array([79, 29, 198])
    assert load.work.tokens / load.examples == pytest.approx(tokens.mean())
    assert load.work.pairs / load.examples == pytest.approx((tokens * (tokens + 1) / 2).mean())
    assert load.target_capacity == loader.target_capacity(4, 1)
    assert load.source.startswith("3 examples")


def test_a_step_has_the_lengths_in_their_ratios_and_no_other_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = ([[40, 10]] * 30, [[60, 20]] * 10)
    stored = [
        token_cache.TokenCache(epath.Path(f"train_length{n}-x"), str(n), np.array(part, np.int32), float(len(part)))
        for n, part in enumerate(lengths, 1)
    ]
    monkeypatch.setattr(token_cache, "find", lambda config, specs: stored)
    fields = {"arm": "coi12", "data__batch": {"count": "examples", "examples": 8, "rows": None}, **epochs(1.0)}
    load = workload.measure(config(**fields, data__ratios={1: 1.0, 2: 3.0}), (1, 1), MEANS)
    assert load.examples == pytest.approx(8)
    assert load.work.targets / load.examples == pytest.approx(0.25 * 10 + 0.75 * 20)
    part = workload.measure(config(**fields, data__max_examples=20), (1, 1), MEANS)
    assert part.examples == pytest.approx(8)
    assert part.steps == 3
    assert part.source.startswith("20 examples")
