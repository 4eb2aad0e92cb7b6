"""peft loads exported adapters onto transformers' models, and computes what the network here does."""

import os

os.environ["USE_TF"] = "0"  # or transformers imports TensorFlow

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel
from transformers import PreTrainedModel

from coi_jax.common.errors import UserError
from coi_jax.config.model import LoraConfig, T5Config, model_section
from coi_jax.families.published_config import from_hf_config
from coi_jax.models import Network, Params, build
from coi_jax.weights import peft
from coi_jax.weights.hf_names import to_params
from tests.coi_jax.models.test_families import TOLERANCE, batch_of, their_logits
from tests.helpers.configs import RUN_FIELDS
from tests.helpers.reference_layers import numpy
from tests.helpers.reference_models import FAMILIES, VOCABULARY, reference


def adapted(theirs: PreTrainedModel, **fields: object) -> Network:
    """The network of a reference, with adapters; its weights are not converted yet."""
    values = {
        "rank": 3,
        "alpha": 8.0,
        "targets": "attention|mlp",
        "dropout": 0.25,
        "rank_stabilized": False,
        "base_dtype": "float32",
    }
    section = from_hf_config(theirs.config.to_dict()) | RUN_FIELDS
    config = model_section(section).model_validate(section)
    return build(config, VOCABULARY, LoraConfig.model_validate(values | fields))


def random_adapters(network: Network) -> Params:
    noise = np.random.default_rng(5)
    adapters, _ = network.split(network.abstract())
    params: Params = jax.tree.map(lambda leaf: jnp.asarray(noise.normal(0, 0.2, leaf.shape), jnp.float32), adapters)
    return params


def base(network: Network, theirs: PreTrainedModel) -> Params:
    weights = {name: numpy(weight) for name, weight in theirs.state_dict().items()}
    _, frozen = network.split(network.abstract())
    assert frozen is not None
    params: Params = jax.tree.map(jnp.asarray, to_params(network.config, frozen, weights))
    return params


@pytest.mark.parametrize("family", [name for name in FAMILIES if not name.startswith("Phi")])  # whose tensors are fused
def test_peft_computes_the_same(family: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Every other family with the rank-stabilised scaling."""
    theirs = reference(FAMILIES[family])
    network = adapted(theirs, rank_stabilized=list(FAMILIES).index(family) % 2 == 0)
    adapters, frozen = random_adapters(network), base(network, theirs)
    batch = batch_of(network)
    ours = jax.jit(network.logits)(network.join(adapters, frozen), batch)
    kept = np.asarray(batch["weights"]) == 1
    with torch.no_grad():
        plain = numpy(their_logits(theirs, batch))
        peft.export(tmp_path, network, adapters, base="somewhere/base")
        loaded = PeftModel.from_pretrained(theirs, tmp_path).eval()
        expected = numpy(their_logits(loaded, batch))
    difference = np.abs(np.asarray(ours) - expected)[kept].max()
    record_property("LoRA", float(difference))
    assert difference < TOLERANCE
    assert np.abs(plain - expected)[kept].max() > 100 * TOLERANCE
    check_loaded(loaded, network)


def check_loaded(loaded: PeftModel, network: Network) -> None:
    """As many adapters as here, with our settings."""
    count = sum(weight.numel() for name, weight in loaded.named_parameters() if "lora_" in name)
    assert count == network.parameter_counts()["trained"]
    [config] = loaded.peft_config.values()
    assert isinstance(config, PeftLoraConfig)
    assert network.lora is not None
    assert (config.r, config.lora_alpha, config.use_rslora, config.lora_dropout, config.base_model_name_or_path) == (
        3,
        8.0,
        network.lora.rank_stabilized,
        0.25,
        "somewhere/base",
    )


def test_adapters_of_some_modules_of_a_name_are_of_those_alone(tmp_path: Path) -> None:
    """Encoder and decoder of a T5 have modules of the same name."""
    theirs = reference(FAMILIES["T5 1.0"])
    network = adapted(theirs, targets=r"^decoder\.attention\.query|mlp\.down")
    assert "decoder.block.0.layer.0.SelfAttention.q" in peft.target_modules(network)
    peft.export(tmp_path, network, random_adapters(network), base="")
    loaded = PeftModel.from_pretrained(theirs, tmp_path)
    found = {name for name, _ in loaded.named_modules() if name.endswith("lora_A")}
    assert isinstance(network.config, T5Config)
    layers = (network.config.layers, network.config.decoder_layers)
    assert len(found) == layers[1] + sum(layers)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] is None


def test_short_names_stand_for_all_modules_that_have_them() -> None:
    network = adapted(reference(FAMILIES["Llama 2"]), targets="query|value")
    assert peft.target_modules(network) == ["q_proj", "v_proj"]


def test_a_network_without_adapters_has_none_to_export(tmp_path: Path) -> None:
    network = replace(adapted(reference(FAMILIES["Llama 2"])), lora=None)
    with pytest.raises(UserError, match="trained all weights"):
        peft.export(tmp_path / "out", network, {}, base="")
    assert not (tmp_path / "out").exists()
