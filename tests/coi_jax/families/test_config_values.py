"""Strange values of a published config.json: one line names the file, the field, the value and what would work."""

import re
from typing import Any

import pytest

from coi_jax.common.errors import UserError
from coi_jax.families.config_values import FIELDS, FLAG, token_ids
from coi_jax.families.published_config import from_hf_config
from coi_jax.families.registry import FAMILIES

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        from_hf_config(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_field_that_a_family_reads_has_values_of_one_kind(kind: str) -> None:
    """True is no number, 1 is not true, and a text is no list of its letters."""
    for field in FAMILIES[kind].defaults:
        wrong: tuple[object, ...] = (0, 1, "true", []) if FIELDS[field] is FLAG else (True, -1, "ab", 10.0**40)
        for value in wrong:
            if not (field == "feed_forward_proj" and value == "ab"):  # whose text has a message of its own
                said = refusal({"model_type": kind, field: value})
                assert said.startswith(f"config.json: {field}: {value}: is no "), said


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if "rope_scaling" in family.defaults])
@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
def test_every_field_of_stretched_positions_too(kind: str, field: str) -> None:
    for name, value in (("factor", True), ("factor", 0), ("beta_fast", "x"), ("original_max_position_embeddings", 1.5)):
        said = refusal({"model_type": kind, field: YARN | {name: value}})
        assert said.startswith(f"config.json: {field}.{name}: {value}: is no "), said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rms_norm_eps": 1e30}, "rms_norm_eps: 1e+30: is no number above 0, at most 0.1; correct it, or fetch"),
        ({"rms_norm_eps": 1.5}, "rms_norm_eps: 1.5: is no number above 0, at most 0.1"),
        ({"rms_norm_eps": True}, "rms_norm_eps: True: is no number"),
        ({"num_key_value_heads": 0}, "num_key_value_heads: 0: is no whole number from 1 to 2147483647"),
        ({"num_key_value_heads": True}, "num_key_value_heads: True: is no whole number"),
        ({"head_dim": 0}, "head_dim: 0: is no whole number"),
        ({"hidden_size": True}, "hidden_size: True: is no whole number"),
        ({"vocab_size": True}, "vocab_size: True: is no whole number"),
        ({"max_position_embeddings": "long"}, "max_position_embeddings: long: is no whole number"),
        ({"rope_theta": True}, "rope_theta: True: is no number above 1, at most 1e+15"),
        ({"rope_scaling": {"a": 1}}, "rope_scaling: {'a': 1}: has no rope_type; give default, linear, llama3 and yarn"),
        ({"rope_scaling": 0}, "rope_scaling: 0: is no object"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings: false: is no boolean"),
        ({"model_type": "qwen3", "layer_types": 0}, "layer_types: 0: is no list"),
        ({"model_type": "qwen3", "layer_types": ["full"] * 32}, "for each of 32 layers"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window: 0: is no whole number from 1"),
        ({"model_type": "mistral", "sliding_window": True}, "sliding_window: True: is no whole number from 1"),
        (
            {"model_type": "gemma2", "sliding_window": None},
            "sliding_window: None: layers have a window by layer_types or",
        ),
        ({"model_type": "gemma3_text", "sliding_window": None}, "sliding_window: None: layers have a window"),
        ({"model_type": "olmo3", "sliding_window": None}, "sliding_window: None: layers have a window"),
        (
            {"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["sliding_attention"]},
            "use_sliding_window: False: layers have a window",
        ),
        (
            {
                "model_type": "exaone4",
                "sliding_window": None,
                "num_hidden_layers": 2,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "sliding_window: None: layers have a window",
        ),
        (
            {"model_type": "exaone4", "sliding_window_pattern": "LG G"},
            'is no whole number from 0 (or letters such as "LL',
        ),
        (
            {"model_type": "gemma3_text", "rope_parameters": {"full_attention": 3}},
            "rope_parameters.full_attention: 3: is",
        ),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {"full_attention": {}, "sliding_attention": {"rope_theta": 1}},
            },
            "rope_parameters.sliding_attention.rope_theta: 1: is no number above 1",
        ),
    ],
)
def test_a_strange_value_is_one_line(values: dict[str, Any], said: str) -> None:
    found = refusal({"model_type": "llama"} | values)
    assert found.startswith("config.json: ")
    assert said in found


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"model_type": "mistral", "sliding_window": None}, {"model_type": "phi3", "sliding_window": None}),
        ({"model_type": "qwen3", "sliding_window": None}, {"model_type": "qwen3"}),
        ({"model_type": "llama", "rope_scaling": {}}, {"model_type": "llama"}),
        ({"model_type": "llama", "rope_parameters": {"rope_theta": 1e4}}, {"model_type": "llama"}),
        ({"model_type": "gemma3_text", "rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, {}),
    ],
)
def test_what_is_left_open_is_as_the_class_has_it(values: dict[str, Any], same: dict[str, Any]) -> None:
    found, due = from_hf_config(values), from_hf_config({"model_type": values["model_type"]} | same)
    assert (found["window"], found["rope"]) == (due["window"], due["rope"])


@pytest.mark.parametrize("value", ["abc", -1, True, 1.0, {"a": 1}, [2, "x"], [[2]], 10**12, 300])
def test_an_end_that_is_no_token(value: object) -> None:
    with pytest.raises(UserError) as caught:
        token_ids({"eos_token_id": value}, "eos_token_id", "config.json", 300)
    assert re.fullmatch(
        r"config\.json: eos_token_id: .*: is neither the id of a token \(a whole number from 0 to 299\) nor .* list of "
        r"such ids; correct it, or take it out: the tokenizer names its own",
        str(caught.value),
    )


def test_ends_that_are_tokens() -> None:
    found = [token_ids({"eos_token_id": value}, "eos_token_id", "config.json", 300) for value in (None, 0, [1, 299])]
    assert found == [[], [0], [1, 299]]
    assert token_ids({"pad_token_id": -1}, "pad_token_id", "config.json") == []  # of Llama 1's first conversions
