"""Presets against what was published with the checkpoints: the number of parameters tells every size and tie."""

import math

import jax
import pytest

from coi_jax.common.errors import UserError
from coi_jax.config.model import DecoderConfig, model_section
from coi_jax.config.run import load_config
from coi_jax.families.registry import FAMILIES, PRESETS, expand
from coi_jax.models import build
from tests.helpers.configs import RUN_FIELDS
from tests.helpers.paths import QUICKSTART

PUBLISHED = {
    "llama_7b": 6_738_415_616,
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama2_70b": 68_976_648_192,
    "llama3_8b": 8_030_261_248,
    "llama31_8b": 8_030_261_248,
    "llama31_70b": 70_553_706_496,
    "llama32_1b": 1_235_814_400,
    "llama32_3b": 3_212_749_824,
    "ministral_8b": 8_019_808_256,
    "mistral_7b_v01": 7_241_732_096,
    "mistral_7b_v02": 7_241_732_096,
    "mistral_7b_v03": 7_248_023_552,
    "qwen25_05b": 494_032_768,
    "qwen25_15b": 1_543_714_304,
    "qwen25_3b": 3_085_938_688,
    "qwen25_7b": 7_615_616_512,
    "qwen25_14b": 14_770_033_664,
    "qwen3_06b": 596_049_920,
    "qwen3_17b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "qwen3_14b": 14_768_307_200,
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320,
    "gemma3_270m": 268_098_176,
    "gemma3_1b": 999_885_952,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384,
    "smollm3_3b": 3_075_098_624,
    "olmo2_1b": 1_484_916_736,
    "olmo2_7b": 7_298_617_344,
    "olmo2_13b": 13_716_198_400,
    "olmo2_32b": 32_234_279_936,
    "olmo3_7b": 7_298_011_136,
    "olmo3_32b": 32_233_522_176,
    "phi3_mini_4k": 3_821_079_552,
    "phi4_14b": 14_659_507_200,
    "phi4_mini": 3_836_021_760,
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
    "t5_large": 737_668_096,
    "t5_3b": 2_851_598_336,
    "t5_11b": 11_307_321_344,
    "flan_t5_small": 76_961_152,
    "flan_t5_base": 247_577_856,
    "flan_t5_large": 783_150_080,
    "flan_t5_xl": 2_849_757_184,
    "flan_t5_xxl": 11_135_332_352,
    "mt5_small": 300_176_768,
    "mt5_base": 582_401_280,
    "mt5_large": 1_229_581_312,
    "mt5_xl": 3_742_619_648,
    "mt5_xxl": 12_921_057_280,
}


@pytest.mark.parametrize(("preset", "published"), PUBLISHED.items(), ids=PUBLISHED.keys())
def test_a_preset_has_as_many_parameters_as_its_checkpoint(preset: str, published: int) -> None:
    config = model_section(PRESETS[preset]).model_validate(PRESETS[preset] | RUN_FIELDS)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(build(config, 0).abstract())) == published


@pytest.mark.parametrize(("preset", "billions"), [("exaone4_1b", 1.07), ("exaone4_32b", 30.95)])
def test_a_preset_has_as_many_parameters_without_embeddings_as_its_card_says(preset: str, billions: float) -> None:
    config = model_section(PRESETS[preset]).model_validate(PRESETS[preset] | RUN_FIELDS)
    abstract = {name: part for name, part in build(config, 0).abstract().items() if name not in ("embedding", "head")}
    assert round(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract)) / 1e9, 2) == billions


@pytest.mark.parametrize("preset", sorted(name for family in FAMILIES.values() for name in family.models))
def test_every_preset_is_a_whole_model(preset: str) -> None:
    model = model_section(PRESETS[preset]).model_validate(PRESETS[preset] | RUN_FIELDS)
    sizes = {name: value for name, value in PRESETS[preset].items() if isinstance(value, int | str)}
    assert sizes
    assert sizes.items() <= model.model_dump().items()


def test_a_preset_belongs_to_one_family() -> None:
    names = [name for family in FAMILIES.values() for name in (*family.variants, *family.models)]
    assert len(names) == len(set(names))
    assert set(names) == set(PRESETS)


def test_fields_beside_a_preset_come_first() -> None:
    assert expand("llama2_7b", {"preset": "llama2_7b", "layers": 2})["layers"] == 2
    assert "preset" not in expand("llama2_7b", {"preset": "llama2_7b"})
    rope = expand("llama31_8b", {"rope": {"theta": 7.0}})["rope"]
    assert (rope["theta"], rope["factor"]) == (7.0, 8.0)


def test_a_preset_can_be_named_on_the_command_line() -> None:
    config = load_config(QUICKSTART, {"model.preset": "qwen3", "model.layers": 3})
    assert isinstance(config.model, DecoderConfig)
    assert (config.model.qk_norm, config.model.layers, config.model.model_dim) == (True, 3, 128)


def test_an_unknown_preset_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="mistral_7b_v01"):
        load_config(QUICKSTART, {"model.preset": "mistral_7b_v1"})
