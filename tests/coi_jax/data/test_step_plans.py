from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coi_jax.chains.dataset import read_chains
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data.mixing import Stream
from coi_jax.data.prompts import prompt
from coi_jax.data.row_shape import RowShape
from coi_jax.data.step_plans import ExamplesPlan, TokensPlan, check_divides, strata_order
from coi_jax.tokenizers.mistral import MistralVocabulary
from data_pipeline.release import __main__ as release
from tests.helpers.configs import quickstart_config

NEEDS = np.random.default_rng(0).integers(1, 60, (100, 1)).astype(np.int32)
TWO_SIDED = np.random.default_rng(1).integers(1, 30, (100, 2)).astype(np.int32)
CAPACITY = (64,)


def config(**overrides: Any) -> RunConfig:
    unit = "epochs" if "epochs" in overrides else "steps"
    fields: dict[str, Any] = {"train.length": {"unit": unit, "count": overrides.pop(unit)}}
    batch = {name: overrides.pop(name) for name in ("count", "examples", "rows") if name in overrides}
    fields |= {"data.batch": batch} | {
        name if name == "seed" else f"data.{name}": overrides[name] for name in overrides
    }
    return quickstart_config({"data.length": 64, **fields})


def _length(overrides: dict[str, Any]) -> dict[str, Any]:
    return overrides if "steps" in overrides else {"epochs": 2.0} | overrides


def stream(config: RunConfig, rates: tuple[float, ...] = (60.0, 40.0)) -> Stream:
    return Stream((60, 40), rates, config.data.mixing, config.seed)


def examples_plan(**overrides: Any) -> ExamplesPlan:
    made = config(count="examples", **{"examples": 16, "rows": None} | _length(overrides))
    return ExamplesPlan(made, stream(made), NEEDS, CAPACITY, 4)


def tokens_plan(needs: np.ndarray = NEEDS, rates: tuple[float, ...] = (60.0, 40.0), **overrides: Any) -> TokensPlan:
    made = config(count="tokens", **{"rows": 4} | _length(overrides))
    return TokensPlan(made, stream(made, rates), needs, (64, 64)[: needs.shape[1]], 4)


def of_step(plan: ExamplesPlan | TokensPlan, step: int) -> list[list[int]]:
    return [row.tolist() for row in plan.of_step(step)]


def met(plan: ExamplesPlan | TokensPlan) -> list[int]:
    return [example for step in range(plan.total_steps) for row in of_step(plan, step) for example in row]


def test_examples_each_step_has_exactly_its_number() -> None:
    plan = examples_plan()
    counts = [sum(map(len, of_step(plan, step))) for step in range(plan.total_steps)]
    assert counts == [16] * 12 + [8]
    assert plan.rows % 4 == 0
    fullest = max(len(plan.of_step(step)) for step in range(plan.total_steps))
    assert fullest <= plan.rows < fullest + 4
    assert plan.useful[0] == pytest.approx(2 * NEEDS.sum() / (13 * plan.rows * 64))


@pytest.mark.parametrize("mixing", ["concatenate", "rates"])
@pytest.mark.parametrize("make", [examples_plan, tokens_plan])
def test_every_example_is_met_once_an_epoch(make: Any, mixing: str) -> None:
    once = met(make(mixing=mixing, epochs=1.0))
    assert sorted(once) == list(range(100))
    assert sorted(met(make(mixing=mixing))) == sorted(2 * list(range(100)))
    assert met(make(mixing=mixing, epochs=1.0, seed=1)) != once


@pytest.mark.parametrize("make", [examples_plan, tokens_plan])
def test_part_of_an_epoch(make: Any) -> None:
    assert 40 <= len(met(make(epochs=0.5))) <= 60
    assert 140 <= len(met(make(epochs=1.5))) <= 160


def test_tokens_steps_are_full_rows_but_for_the_last() -> None:
    plan = tokens_plan()
    counts = [len(plan.of_step(step)) for step in range(plan.total_steps)]
    assert counts[:-1] == [4] * (plan.total_steps - 1)
    assert 0 < counts[-1] <= 4
    assert 0.9 < plan.useful[0] <= 1
    assert plan.steps_per_epoch == pytest.approx(sum(counts) / 4 / 2)


@settings(max_examples=25)
@given(steps=st.lists(st.integers(0, 40), min_size=1, max_size=5), rates=st.sampled_from([(60.0, 40.0), (1.0, 9.0)]))
def test_a_step_does_not_depend_on_those_asked_before(steps: list[int], rates: tuple[float, float]) -> None:
    """Resuming anywhere reads the same rows, also where blocks of several rates have different numbers of rows."""
    plan = tokens_plan(rates=rates, mixing="rates", steps=41)
    for step in steps:
        fresh = tokens_plan(rates=rates, mixing="rates", steps=41)
        assert of_step(plan, step) == of_step(fresh, step)
        assert len(of_step(plan, step)) == 4


def test_no_row_is_over_capacity_on_either_side() -> None:
    plan = tokens_plan(TWO_SIDED)
    for step in range(plan.total_steps):
        assert all((TWO_SIDED[row].sum(0) <= 64).all() for row in of_step(plan, step))
    assert len(plan.useful) == 2
    assert sorted(met(plan)) == sorted(2 * list(range(100)))


def test_a_run_counted_in_steps_has_that_many() -> None:
    for plan in (examples_plan(steps=30), tokens_plan(steps=30)):
        assert plan.total_steps == 30
        assert plan.of_step(29)


def test_too_few_rows_name_what_would_do() -> None:
    needed = examples_plan().rows
    with pytest.raises(UserError, match=f"needs .* rows: give {needed}, or None"):
        examples_plan(rows=4)
    assert examples_plan(rows=needed + 4).rows == needed + 4
    with pytest.raises(UserError, match=f"give {needed} or {needed + 4}"):
        examples_plan(rows=needed + 2)


@pytest.mark.parametrize(("rows", "choice"), [(3, "give 8$"), (12, "give 8 or 16")])
def test_rows_that_do_not_divide(rows: int, choice: str) -> None:
    with pytest.raises(UserError, match=choice):
        check_divides(rows, 8)
    check_divides(16, 8)


def test_the_real_chains_fill_rows_of_2048(release_folder: Path, tmp_path: Path) -> None:
    """CoI_2 and CoI_3 in Mistral's vocabulary and the Alpaca template."""
    assert release.main([f"--src={release_folder}", f"--out={tmp_path / 'coi'}"]) == 0
    vocabulary = MistralVocabulary("v1")
    chains = [chain for chain in read_chains(tmp_path / "coi", "train") if chain.length > 1]
    prompts = [vocabulary.encode(prompt(chain.instruction, chain.input, "alpaca")) for chain in chains]
    answers = [[*vocabulary.encode(chain.targets), vocabulary.eos_id] for chain in chains]
    lengths = np.array([[len(ids), len(answer)] for ids, answer in zip(prompts, answers, strict=True)], np.int32)
    shape = RowShape(2048, 0, 1)
    needs = shape.needs(lengths[shape.fit(lengths, "drop").kept])
    made = config(length=2048, count="tokens", rows=8, epochs=1.0)
    whole = Stream((len(needs),), (1.0,), "concatenate", 0)
    assert TokensPlan(made, whole, needs, shape.capacity, 1).useful[0] >= 0.97


@pytest.mark.parametrize(("plan", "field"), [(examples_plan, "examples"), (tokens_plan, "rows")])
def test_a_step_of_far_more_than_the_data_is_refused_at_once(plan: Any, field: str) -> None:
    with pytest.raises(UserError, match=rf"config\.data\.batch\.{field}: .* give at most [\d,]+$") as caught:
        plan(**{field: 10**8}, steps=60)
    most = int(str(caught.value).split(" at most ")[1].replace(",", ""))
    assert 0 < most < 10**6


@pytest.mark.parametrize("plan", [examples_plan, tokens_plan])
def test_epochs_that_make_no_step_say_how_many_do(plan: Any) -> None:
    with pytest.raises(
        UserError, match=r"config\.train\.length\.count: 0\.0001: makes no step; .* takes (.*) epochs"
    ) as caught:
        plan(epochs=0.0001)
    enough = float(str(caught.value).split(" takes ")[1].split(" epochs")[0])
    assert plan(epochs=enough * 1.01).total_steps >= 1


@pytest.mark.parametrize("seed", [0, 1])
def test_steps_of_as_many_examples_need_nearly_as_many_rows(seed: int) -> None:
    """Lengths spread as those of real chains: hardly more rows than the examples fill, and one to be a whole number."""
    needs = np.random.default_rng(seed).lognormal(5.6, 0.55, (20_000, 1)).clip(40, 2048).astype(np.int32)
    made = config(count="examples", examples=256, rows=None, epochs=2.0, seed=seed)
    plan = ExamplesPlan(made, Stream((12_000, 8_000), (60.0, 40.0), "concatenate", seed), needs, (2048,), 1)
    assert plan.rows < 1.01 * 256 * needs.mean() / 2048 + 1
    assert plan.useful[0] > 0.965


@given(st.integers(0, 500), st.integers(1, 200), st.integers(1, 40), st.integers(0, 3))
def test_a_step_has_one_example_of_each_stratum(start: int, size: int, examples: int, seed: int) -> None:
    order = strata_order(start, size, examples, seed)
    assert sorted(order.tolist()) == list(range(size))
    steps = (start + order) // examples
    for step in np.unique(steps):
        ranks = np.flatnonzero(steps == step)
        strata = ranks * len(ranks) // size
        assert np.abs(strata - np.arange(len(ranks))).max() <= 1, "a boundary between strata moves by parts of steps"
