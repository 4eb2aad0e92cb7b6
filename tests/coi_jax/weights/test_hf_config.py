"""config.json and our model section, each from the other."""

import importlib
import json
import math
from dataclasses import replace
from typing import Any

import pydantic
import pytest
from transformers import Qwen3Config
from transformers.models.qwen3 import modeling_qwen3

from coi_jax.common.errors import UserError
from coi_jax.config.model import DecoderConfig, T5Config, model_section
from coi_jax.config.pretrained import check_same_network
from coi_jax.families.published_config import IGNORED_FIELDS, from_hf_config, network_fields
from coi_jax.families.registry import FAMILIES, PRESETS
from coi_jax.models.rotary import rotary_scale
from coi_jax.weights.hf_config import to_hf_config
from tests.helpers import tiny_networks
from tests.helpers.configs import RUN_FIELDS
from tests.helpers.ministral3_reference import Ministral3Config
from tests.helpers.reference_models import FAMILIES as REFERENCES

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0] * 48,
    "long_factor": [4] * 48,
    "original_max_position_embeddings": 4096,
}


def make(values: dict[str, Any]) -> DecoderConfig | T5Config:
    return model_section(values).model_validate(values | RUN_FIELDS)


def config_class(kind: str) -> type:
    if kind == "ministral3":
        return Ministral3Config
    module = importlib.import_module(f"transformers.models.{kind.removesuffix('_text')}")
    names = {"gemma3_text": "Gemma3TextConfig", "smollm3": "SmolLM3Config", "t5": "T5Config", "mt5": "MT5Config"}
    found: type = getattr(module, names.get(kind, f"{kind.capitalize()}Config"))
    return found


@pytest.mark.parametrize("family", REFERENCES)
def test_a_family_there_and_back_is_the_same(family: str) -> None:
    theirs = REFERENCES[family]
    ours = make(from_hf_config(theirs.to_dict()))
    assert ours.vocabulary_size is not None
    written = to_hf_config(ours, ours.vocabulary_size, theirs.model_type)
    assert written["model_type"] == theirs.model_type
    assert from_hf_config(type(theirs)(**written).to_dict()) == from_hf_config(theirs.to_dict())


@pytest.mark.parametrize("preset", [name for name, values in PRESETS.items() if "layers" in values])
def test_every_preset_can_be_published(preset: str) -> None:
    ours = make(PRESETS[preset])
    assert ours.vocabulary_size is not None
    found = make(from_hf_config(to_hf_config(ours, ours.vocabulary_size)))
    assert found == ours


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_a_file_leaves_out_is_as_in_transformers(kind: str) -> None:
    family, theirs = FAMILIES[kind], config_class(kind)().to_dict()
    assert from_hf_config({"model_type": kind}) == from_hf_config(theirs)
    assert not {name for name, value in family.fixed.items() if theirs.get(name) not in (None, value)}
    assert set(theirs) - set(family.defaults) - set(family.fixed) - IGNORED_FIELDS <= {
        name for name in theirs if not theirs[name]
    }


def test_an_entry_of_the_table_is_all_that_a_new_family_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Qwen 2.5 whose queries and keys are normalized, which no published family is."""
    qwen = FAMILIES["qwen2"]
    plain = dict(window=None, global_layer_interval=None)
    odd = tiny_networks.change(tiny_networks.DECODER, qk_norm=True, qkv_bias=True, **plain)
    new = replace(qwen, model_type="qwen_normed", architecture="Normed", switches=qwen.switches | {"qk_norm": True})
    with pytest.raises(UserError, match="no published family"):
        to_hf_config(odd, 40)
    monkeypatch.setitem(FAMILIES, new.model_type, new)
    values = to_hf_config(odd, 40)
    assert (values["model_type"], values["architectures"]) == ("qwen_normed", ["Normed"])
    assert from_hf_config(values) == {name: odd.model_dump()[name] for name in network_fields("decoder")} | {
        "vocabulary_size": 40
    }


def test_fields_are_those_of_a_network_and_not_of_a_run() -> None:
    for config in tiny_networks.CONFIGS.values():
        assert set(config.model_dump()) - set(network_fields(config.kind)) == set(RUN_FIELDS)


@pytest.mark.parametrize(
    ("values", "due"),
    [
        ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 0}, (4096, None)),
        ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 32}, (None, None)),
        ({"model_type": "qwen3", "sliding_window": 64}, (None, None)),
        ({"model_type": "mistral", "sliding_window": None}, (None, None)),
        ({"model_type": "gemma2", "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}, (None, None)),
        ({"model_type": "gemma3_text", "num_hidden_layers": 3}, (4096, 6)),
        ({"model_type": "exaone4", "sliding_window_pattern": "LLG", "num_hidden_layers": 4}, (4096, 3)),
    ],
)
def test_windows(values: dict[str, Any], due: tuple[int | None, int | None]) -> None:
    found = from_hf_config(values)
    assert (found["window"], found["global_layer_interval"]) == due


@pytest.mark.parametrize("interval", [2, 3, 5])
@pytest.mark.parametrize("first", [1, 2, 3, 5])
def test_layers_without_a_window_begin_anywhere(first: int, interval: int) -> None:
    types = [
        "full_attention" if n >= first and (n - first) % interval == 0 else "sliding_attention" for n in range(1, 12)
    ]
    values = {"model_type": "ministral", "num_hidden_layers": 11, "layer_types": types}
    if first > interval:
        with pytest.raises(UserError, match="in all but every n-th"):
            from_hf_config(values)
        return
    ours = make(from_hf_config(values))
    assert isinstance(ours, DecoderConfig)
    assert [n for n, kind in enumerate(types) if kind == "full_attention"] == [*ours.global_layers]
    assert to_hf_config(ours, 32_000, "ministral")["layer_types"] == types


def test_version_5_of_transformers_spells_rotary_positions_otherwise() -> None:
    older = {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": LLAMA3}
    newer = {"model_type": "llama", "rope_parameters": LLAMA3 | {"rope_theta": 5e5}}
    assert from_hf_config(older)["rope"] == from_hf_config(newer)["rope"]
    linear = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    both = {"full_attention": linear, "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}
    found = from_hf_config({"model_type": "gemma3_text", "rope_parameters": both})["rope"]
    assert (found["theta"], found["local_theta"], found["scaling"], found["factor"]) == (1e6, 2e4, "linear", 8.0)


def test_yarn_by_its_spellings() -> None:
    """The older name of its kind, and what it is stretched from where that is not said."""
    found = from_hf_config({"model_type": "qwen3", "rope_scaling": YARN})["rope"]
    assert (found["scaling"], found["factor"], found["original_length"]) == ("yarn", 4.0, 32768)
    older = {"type": "yarn", "factor": 4.0, "beta_fast": None, "attention_factor": 0.1 * math.log(4) + 1}
    values = {"model_type": "qwen3", "max_position_embeddings": 32768, "rope_scaling": older}
    assert from_hf_config(values)["rope"] == found
    assert from_hf_config({"model_type": "qwen3", "rope_parameters": YARN | {"rope_theta": 10_000.0}})["rope"] == found


@pytest.mark.parametrize("said", [{"attention_factor": 1.5}, {"mscale": 2.0, "mscale_all_dim": 0.5}])
def test_yarn_with_an_attention_factor_of_its_own(said: dict[str, float]) -> None:
    values = {"model_type": "qwen3", "rope_scaling": YARN | said}
    ours = make(from_hf_config(values))
    assert isinstance(ours, DecoderConfig)
    theirs = modeling_qwen3.Qwen3RotaryEmbedding(Qwen3Config(**values))
    assert ours.rope.attention_factor == pytest.approx(theirs.attention_scaling, rel=1e-9)
    assert rotary_scale(ours.rope) == ours.rope.attention_factor
    assert make(from_hf_config(to_hf_config(ours, 151_936, "qwen3"))) == ours


def test_dynamic_scaling_is_published_as_it_was() -> None:
    values = {"model_type": "llama", "max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    ours = make(from_hf_config(values))
    written = to_hf_config(ours, 32_000)
    assert (written["max_position_embeddings"], written["rope_scaling"]["rope_type"]) == (64, "dynamic")
    assert make(from_hf_config(written)) == ours


def test_longrope_by_its_spellings() -> None:
    """The older names of its kind, and the fields of version 5 of transformers."""
    values = {"model_type": "phi3", "max_position_embeddings": 131072, "partial_rotary_factor": 0.75, "head_dim": 128}
    found = from_hf_config(values | {"rope_scaling": LONGROPE})["rope"]
    assert (found["scaling"], found["factor"], found["original_length"]) == ("longrope", 32.0, 4096)
    assert (found["rotated_share"], found["short_factors"][-1], found["long_factors"]) == (0.75, 1.0, (4.0,) * 48)
    for name in ("su", "yarn"):
        assert from_hf_config(values | {"rope_scaling": LONGROPE | {"type": name}})["rope"] == found
    newer = LONGROPE | {"rope_type": "longrope", "rope_theta": 10_000.0, "partial_rotary_factor": 0.75}
    del newer["type"], values["partial_rotary_factor"]
    assert from_hf_config(values | {"rope_parameters": newer})["rope"] == found


def test_factors_of_longrope_are_as_many_as_pairs_of_channels() -> None:
    section = PRESETS["phi4_mini"]
    read_back = json.loads(json.dumps(section))
    check_same_network(read_back, section, "folder")
    read_back["rope"]["long_factors"][3] = 2.0
    with pytest.raises(UserError, match=r"model\.rope\.long_factors"):
        check_same_network(read_back, section, "folder")
    for change in ({"long_factors": (1.0,) * 47}, {"rotated_share": 1.0}, {"scaling": "none", "factor": 1.0}):
        with pytest.raises(pydantic.ValidationError, match=r"must be .* each for scaling"):
            make(section | {"rope": section["rope"] | change})


def test_layers_of_exaone_4_that_see_everything_are_turned_only_where_no_layer_has_a_window() -> None:
    assert not from_hf_config({"model_type": "exaone4"})["rope"]["everywhere"]
    assert from_hf_config({"model_type": "exaone4", "sliding_window": None})["rope"]["everywhere"]


@pytest.mark.parametrize(
    ("whole", "inner"), [("gemma3", "gemma3_text"), ("mistral3", "mistral"), ("mistral3", "ministral3")]
)
def test_the_language_model_beside_a_vision_tower(whole: str, inner: str) -> None:
    text = {"model_type": inner, "num_hidden_layers": 34, "hidden_size": 2560, "head_dim": 128}
    values = {"model_type": whole, "text_config": text, "vision_config": {"hidden_size": 7}}
    assert from_hf_config(values) == from_hf_config(text)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "gpt_neox"}, "model_type: gpt_neox: unknown"),
        ({}, "config.json: model_type: missing: it says which network this is"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias: True: the network here only computes"),
        ({"model_type": "llama", "hidden_act": "relu"}, "hidden_act: relu"),
        ({"model_type": "gemma2", "hidden_activation": "gelu"}, "hidden_activation: gelu"),
        ({"model_type": "t5", "feed_forward_proj": "gated-silu"}, "feed_forward_proj: gated-silu"),
        ({"model_type": "t5", "decoder_start_token_id": 2}, "decoder_start_token_id: 2"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "in all but every n-th"),
        ({"model_type": "gemma2", "num_hidden_layers": 2, "layer_types": ["full_attention"]}, "for each of 2 layers"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "longrope"}}, "default, linear, llama3 and yarn"),
        ({"model_type": "llama", "partial_rotary_factor": 0.75}, "partial_rotary_factor: 0.75: the network here only"),
        ({"model_type": "llama", "rope_parameters": {"partial_rotary_factor": 0.5}}, "turns all channels of a head"),
        ({"model_type": "phi3", "rope_scaling": {"type": "longrope", "short_factor": [1]}}, "needs 'long_factor'"),
        (
            {
                "model_type": "phi3",
                "max_position_embeddings": 131072,
                "rope_scaling": LONGROPE | {"attention_factor": 2},
            },
            "an attention_factor of 1.190238",
        ),
        ({"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "take rope_scaling out"),
        ({"model_type": "qwen3", "rope_scaling": YARN | {"truncate": False}}, "computes YaRN truncated to whole pairs"),
        (
            {"model_type": "llama", "rope_scaling": {"type": "yarn", "factor": 4.0}},
            "needs 'original_max_position_embed",
        ),
        (
            {"model_type": "ministral3", "rope_parameters": YARN},
            "needs llama_4_scaling_beta and original_max_position_emb",
        ),
        ({"model_type": "t5gemma"}, "model_type: t5gemma: is an encoder-decoder of another kind than T5, which is not"),
        ({"model_type": "qwen3", "rope_scaling": {"type": "yarn"}}, "yarn needs 'factor'"),
        (
            {"model_type": "qwen3_moe"},
            "is a mixture of experts, which is not computed here; take a",
        ),
        ({"model_type": "mistral3", "text_config": {"model_type": "ministral4"}}, "model_type: ministral4: unknown"),
        (
            {"model_type": "mistral3", "text_config": {"model_type": "ministral3"}, "quantization_config": {"bits": 8}},
            "quantization_config: {'bits': 8}: its weights are quantized",
        ),
        ({"model_type": "qwen2_5_vl"}, "is a model of images or sound beside text"),
        (
            {"model_type": "llama", "quirks": 1, "auto_map": {"AutoModelForCausalLM": "own.Own"}},
            "quirks: 1: is no field",
        ),
        ({"model_type": "llama", "rope_scaling": {"type": "linear"}}, "linear needs 'factor'"),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "full precision"),
        ({"model_type": ["llama"]}, "model_type: ['llama']: unknown"),
        ({"model_type": "llama", "num_hidden_layers": 10**18}, "num_hidden_layers: 1000000000000000000: is no whole"),
        ({"model_type": "t5", "num_layers": 2.5}, "num_layers: 2.5: is no whole number"),
        ({"model_type": "llama", "num_hidden_layers": -1}, "num_hidden_layers: -1"),
        ({"model_type": "llama", "hidden_size": "big", "head_dim": None}, "hidden_size: big: is no whole number"),
        (
            {"model_type": "llama", "num_attention_heads": 0, "head_dim": None},
            "num_attention_heads: 0: is no whole number",
        ),
        ({"model_type": "llama", "rope_scaling": 3}, "rope_scaling: 3: is no object"),
        ({"model_type": "llama", "residual_multiplier": 0.2}, "is no field of llama that is known here"),
    ],
)
def test_what_the_network_does_not_compute_stops(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        from_hf_config(values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_off_may_have_any_name() -> None:
    assert from_hf_config({"model_type": "qwen2", "use_mrope": False}) == from_hf_config({"model_type": "qwen2"})


@pytest.mark.parametrize(
    "field",
    [
        {"quantization_config": None},
        {"is_llama_config": True},
        {"transformers.js_config": {"dtype": "q4"}},
        {"rope_interleaved": True, "kept_by": "someone"},
        {"rms_norm_eps": None, "rope_theta": None, "hidden_act": None, "tie_word_embeddings": None},
        {"dtype": "bfloat16", "torch_dtype": None},
        {"auto_map": {"AutoConfig": "own.Own"}, "architectures": None},
    ],
)
def test_fields_that_change_nothing_are_read(field: dict[str, Any]) -> None:
    assert from_hf_config({"model_type": "llama"} | field) == from_hf_config({"model_type": "llama"})


def test_a_network_of_no_family_cannot_be_published() -> None:
    odd = tiny_networks.change(tiny_networks.DECODER, qk_norm=True, qkv_bias=True)
    with pytest.raises(UserError, match="no published family has this together with the other fields"):
        to_hf_config(odd, 40)


def test_a_model_section_that_a_checkpoint_contradicts() -> None:
    section = tiny_networks.DECODER.model_dump()
    due = {name: section[name] for name in network_fields("decoder")}
    check_same_network(section, due, "folder")
    plain = due | {"window": None, "global_layer_interval": None, "logits_softcap": None}
    check_same_network(section | {"window": 0, "global_layer_interval": 0, "logits_softcap": 0.0}, plain, "folder")
    with pytest.raises(UserError, match=r"config.model.window"):
        check_same_network(section | {"window": 7}, due | {"window": None}, "folder")
    with pytest.raises(UserError, match=r"config.model.mlp_dim: 28: the checkpoint folder has 99"):
        check_same_network(section, due | {"mlp_dim": 99}, "folder")
