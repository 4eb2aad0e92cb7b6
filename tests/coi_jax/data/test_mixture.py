from typing import Any

import pytest

from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config
from coi_jax.data.mixture import describe, mixing_rates, shares
from coi_jax.data.task_specs import check_names
from tests.helpers.configs import quickstart_config
from tests.helpers.paths import QUICKSTART


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data.ratios": {1: 0.5, 2: 0.5}},
            r"^config\.data\.ratios: \{1: 0\.5, 2: 0\.5\}: arm coi123 is tuned on chains of length 1, 2, 3; name exact",
        ),
        ({"data.ratios": {1: 0.5, 2: 0.4, 3: 0.3, 4: 0.1}}, "tuned on chains of length 1, 2, 3; name exactly those"),
        ({"data.ratios": {1: 1.0, 2: 1e-9, 3: 1.0}}, "gives a length a share below 1e-06; choose an arm without"),
        ({"data.curriculum": {1: 0, 2: 10}}, r"^config\.data\.curriculum: .*; name exactly those"),
        ({"data.curriculum": {1: 5, 2: 10, 3: 20}}, "leaves step 0 without chains; let a length begin there"),
        ({"data.curriculum": {1: 0, 2: 10, 3: 1000}}, "begins a length after the last of 1000 steps; let it begin"),
        (
            {"train.loss_on": {"kind": "weighted_steps", "weights": (0.0, 1.0)}},
            r"^config\.train\.loss_on: .*leaves chains of 1 steps without a loss; give one of their steps a weight",
        ),
        (
            {"train.loss_on": {"kind": "weighted_steps", "weights": (0.0, 1.0)}, "arm": "coi2_final"},
            "leaves chains of 1 steps without a loss",
        ),
    ],
)
def test_what_does_not_fit_the_arm_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_names(load_config(QUICKSTART, fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.ratios": {1: 0.0, 2: 1.0, 3: 1.0}}, r"^config\.data\.ratios\.1: 0\.0: should be greater than 0"),
        ({"data.ratios": "{1: -1, 2: 1, 3: 1}"}, r"^config\.data\.ratios\.1: -1: should be greater than 0"),
        (
            {"data.ratios": "{1: 0.5, 2: nan}"},
            r"^config\.data\.ratios: .*: cannot be read: write numbers, quoted texts",
        ),
        ({"data.ratios": "half"}, r"^config\.data\.ratios: half: should be a valid dictionary"),
        ({"data.ratios": {"a": 1.0}}, r"^config\.data\.ratios: a: as a key it should be a valid integer"),
        ({"data.max_examples": 0}, r"^config\.data\.max_examples: 0: should be greater than 0"),
        ({"data.curriculum": {1: -1}}, r"^config\.data\.curriculum\.1: -1: should be greater than or equal to 0"),
        ({"train.loss_on": "last"}, r"^config\.train\.loss_on\.kind: last: unknown; did you mean 'last_step'"),
        ({"train.loss_on": "weighted_steps"}, r"^config\.train\.loss_on\.weights: missing"),
        (
            {"train.loss_on": "weighted_steps", "train.loss_on.weights": "(1, -1)"},
            r"^config\.train\.loss_on\.weights\.1: -1: should be greater than or equal to 0",
        ),
    ],
)
def test_what_no_arm_could_have_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(QUICKSTART, fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arm", ["base", "cot"])
def test_a_baseline_that_is_not_tuned_may_have_any(arm: str) -> None:
    check_names(quickstart_config({"arm": arm, "data.ratios": {7: 1.0}}))


def test_text_on_the_command_line_is_a_mapping() -> None:
    fields = {
        "data.ratios": "{1: 1, 2: 2, 3: 1}",
        "data.curriculum": "{1: 0, 2: 0, 3: 9}",
        "train.loss_on": "last_step",
    }
    config = load_config(QUICKSTART, fields)
    assert config.data.ratios == {1: 1.0, 2: 2.0, 3: 1.0}
    assert config.data.curriculum == {1: 0, 2: 0, 3: 9}
    assert config.train.loss_on.kind == "last_step"
    assert hash(config) == hash(load_config(QUICKSTART, fields))
    assert type(config).model_validate_json(config.model_dump_json()) == config


def test_rates_are_ratios_or_seqios_or_numbers_of_rows() -> None:
    ratios = quickstart_config({"data.ratios": {1: 1, 2: 2, 3: 1}})
    assert mixing_rates(ratios, [5.0, 6.0, 7.0], [10, 20, 30]) == [1.0, 2.0, 1.0]
    assert mixing_rates(quickstart_config({"data.mixing": "rates"}), [5.0, 6.0, 7.0], [10, 20, 30]) == [5.0, 6.0, 7.0]
    assert mixing_rates(quickstart_config(), [5.0, 6.0, 7.0], [10, 20, 30]) == [10.0, 20.0, 30.0]


def test_the_log_says_where_each_length_comes_from_and_how_often_it_is_met() -> None:
    parts = shares(["train_length1", "irrelevant_length2"], [1000, 500], [3.0, 1.0], 1500, [0, 100])
    assert describe(parts) == (
        "training on 75.0% train_length1 (1,000 examples, 1.12 times an epoch), "
        "25.0% irrelevant_length2 (500 examples, 0.75 times an epoch, from step 100)"
    )
