"""The table of names: every parameter of every family, both ways; what is said of a checkpoint that does not fit."""

import jax
import numpy as np
import pytest

from coi_jax.common.errors import UserError
from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.families.registry import FAMILIES as REGISTRY
from coi_jax.models import build
from coi_jax.weights.hf_names import (
    ResolvedKeys,
    canonical_key,
    names,
    parameter_mappings,
    resolve_keys,
    summarize_keys,
    to_params,
    to_tensors,
)
from tests.helpers.published_models import model, section
from tests.helpers.reference_models import FAMILIES
from tests.helpers.tiny_networks import DECODER, T5, VOCABULARY, change

CONFIGS: dict[str, DecoderConfig | T5Config] = {
    "Llama": DECODER,
    "Qwen": change(DECODER, qkv_bias=True, tied_embedding=True, qk_norm=True),
    "Gemma": change(DECODER, norm_placement="sandwich", qk_norm=True),
    "T5 1.0": change(T5, mlp="relu", tied_embedding=True),
    "T5 1.1": T5,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_a_family_has_its_place(family: str) -> None:
    theirs = model(family)
    network = build(section(theirs), 1)
    tensors = {name: weight.detach().numpy() for name, weight in theirs.named_parameters()}
    params = to_params(network.config, network.abstract(), tensors)
    back = dict(to_tensors(network.config, params, REGISTRY[theirs.config.model_type]))
    assert set(back) == set(tensors)
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(back[key], tensor)


@pytest.mark.parametrize("placement", ["pre", "post", "sandwich"])
def test_every_parameter_of_a_decoder_has_a_name_wherever_its_norms_are(placement: str) -> None:
    network = build(change(DECODER, norm_placement=placement, qkv_bias=True, qk_norm=True), VOCABULARY)
    found = parameter_mappings(network.config, network.abstract())
    keys = [key for mapping in found.values() for key in mapping.keys]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes_of_tensors_follow_from_those_of_parameters(name: str) -> None:
    network = build(CONFIGS[name], VOCABULARY)
    for mapping in parameter_mappings(network.config, network.abstract()).values():
        assert mapping.to_tensor(np.zeros(mapping.shape)).shape == mapping.tensor_shape
        assert mapping.from_tensor(np.zeros(mapping.tensor_shape)).shape == mapping.shape
        assert mapping.shape in [leaf.shape[mapping.stacked :] for leaf in jax.tree.leaves(network.abstract())]


def test_a_norm_after_attention_has_another_meaning_in_gemma() -> None:
    llama, gemma = names(DECODER), names(CONFIGS["Gemma"])
    after = "model.layers.{}.post_attention_layernorm.weight"
    assert llama["layers.mlp_norm.scale"] == after == gemma["layers.attention_post_norm.scale"]


@pytest.mark.parametrize(
    ("key", "common"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.vision_tower.encoder.weight", None),
        ("multi_modal_projector.mm_input_projection_weight", None),
        ("model.layers.3.self_attn.rotary_emb.inv_freq", None),
        ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight", None),
        ("decoder.block.1.layer.1.EncDecAttention.q.weight", "decoder.block.1.layer.1.EncDecAttention.q.weight"),
    ],
)
def test_keys_of_some_checkpoints_only(key: str, common: str | None) -> None:
    assert canonical_key(key) == common


def test_layers_are_told_in_ranges() -> None:
    keys = [f"model.layers.{number}.a.weight" for number in (0, 1, 2, 5)] + ["model.norm.weight"]
    assert summarize_keys(keys) == ["model.layers.0-2,5.a.weight", "model.norm.weight"]
    assert summarize_keys([]) == []


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    """Of a checkpoint that fits `DECODER`."""
    found = parameter_mappings(DECODER, build(DECODER, VOCABULARY).abstract())
    return {key: mapping.tensor_shape for mapping in found.values() for key in mapping.keys}


def find(shapes: dict[str, tuple[int, ...]], tied: bool = False) -> ResolvedKeys:
    network = build(change(DECODER, tied_embedding=tied), VOCABULARY)
    return resolve_keys(network.config, parameter_mappings(network.config, network.abstract()), shapes, "folder")


def test_missing_unknown_and_misshapen_tensors_are_told_in_one_line(shapes: dict[str, tuple[int, ...]]) -> None:
    wrong = dict(shapes)
    for layer in (1, 2):
        del wrong[f"model.layers.{layer}.mlp.up_proj.weight"]
        wrong[f"model.layers.{layer}.mlp.extra.weight"] = (1,)
        wrong[f"model.layers.{layer}.mlp.down_proj.weight"] = (20, 44)
    with pytest.raises(UserError) as caught:
        find(wrong)
    said = str(caught.value)
    assert "missing: model.layers.1-2.mlp.up_proj.weight; " in said
    assert "not of this network: model.layers.1-2.mlp.extra.weight; " in said
    assert "model.layers.1.mlp.down_proj.weight [20, 44], where [20, 28] is due (model_dim × mlp_dim)" in said
    assert "layers.2.mlp.down" not in said
    assert "\n" not in said


def test_a_checkpoint_of_more_layers_does_not_fit(shapes: dict[str, tuple[int, ...]]) -> None:
    deeper = shapes | {key.replace("layers.0", "layers.3"): shape for key, shape in shapes.items()}
    with pytest.raises(UserError, match=r"weights: folder: not of this network: model.layers.3"):
        find(deeper)


def test_a_tied_head_may_be_there_twice_or_under_its_other_name(shapes: dict[str, tuple[int, ...]]) -> None:
    assert find(shapes, tied=True).duplicates == [("model.embed_tokens.weight", "lm_head.weight")]
    once = {key: shape for key, shape in shapes.items() if key != "lm_head.weight"}
    assert find(once, tied=True).duplicates == []
    other = {key: shape for key, shape in shapes.items() if key != "model.embed_tokens.weight"}
    assert find(other, tied=True).keys["model.embed_tokens.weight"] == "lm_head.weight"
    with pytest.raises(UserError, match=r"missing: lm_head.weight"):
        find(once)


def test_a_t5_may_hold_its_embedding_three_times() -> None:
    mappings = parameter_mappings(T5, build(T5, VOCABULARY).abstract())
    shapes = {key: mapping.tensor_shape for mapping in mappings.values() for key in mapping.keys}
    more = {f"{stack}.embed_tokens.weight": shapes["shared.weight"] for stack in ("encoder", "decoder")}
    assert resolve_keys(T5, mappings, shapes | more, "folder").duplicates == [("shared.weight", key) for key in more]
