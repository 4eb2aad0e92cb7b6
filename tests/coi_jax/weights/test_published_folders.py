"""Published folders as they are in the wild: the weights load by `weights.folder` alone, and the logits are right."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from coi_jax import convert
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config
from coi_jax.families.phi3 import PHI4_MINI_LONG_FACTORS
from coi_jax.models import Network, build
from coi_jax.runs.run_folder import open_run
from coi_jax.weights import conversion, publish
from coi_jax.weights.initial_weights import open_weights
from coi_jax.weights.mesh_loading import load_params
from tests.helpers.paths import CONFIGS, QUICKSTART, ROOT
from tests.helpers.reference_models import reference
from tests.helpers.tokenizer_folders import write_json

# As people publish them: the fields that one tool or another writes, older and newer spellings, nulls.
WILD: dict[str, dict[str, Any]] = {
    "a small Llama with the notes of its makers": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "hidden_act": "silu",
        "hidden_size": 36,
        "intermediate_size": 40,
        "is_llama_config": True,
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers.js_config": {"dtype": "q4"},
        "vocab_size": 300,
    },
    "a Gemma 3 that was converted from another format": {
        "_sliding_window_pattern": 6,
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "attn_logit_softcapping": None,
        "dtype": "float32",
        "final_logit_softcapping": None,
        "head_dim": 8,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 20,
        "intermediate_size": 24,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "num_attention_heads": 4,
        "num_hidden_layers": 6,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 8,
        "rms_norm_eps": 9.999999974752427e-07,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": 5,
        "use_bidirectional_attention": False,
        "vocab_size": 300,
    },
    "a Phi-3 with its own class": {
        "architectures": ["Phi3ForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3"},
        "model_type": "phi3",
        "attention_bias": False,
        "embd_pdrop": 0.0,
        "hidden_act": "silu",
        "hidden_size": 24,
        "intermediate_size": 40,
        "max_position_embeddings": 4096,
        "num_attention_heads": 6,
        "num_hidden_layers": 32,
        "num_key_value_heads": 2,
        "original_max_position_embeddings": 4096,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": 5,
        "tie_word_embeddings": False,
        "vocab_size": 300,
    },
    "Phi-4-mini": {
        "architectures": ["Phi3ForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3"},
        "model_type": "phi3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "embd_pdrop": 0.0,
        "full_attn_mod": 1,
        "hidden_act": "silu",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "num_attention_heads": 24,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "long_factor": [*PHI4_MINI_LONG_FACTORS],
            "short_factor": [1.0] * 48,
            "type": "longrope",
        },
        "rope_theta": 10000.0,
        "sliding_window": 262144,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 200064,
    },
    "a long Qwen 2.5": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": 24,
        "intermediate_size": 40,
        "max_position_embeddings": 64,
        "max_window_layers": 21,
        "num_attention_heads": 6,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 16, "type": "yarn"},
        "rope_theta": 1000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": 300,
    },
}
SHARED = ROOT.parent / "shared" / "cases" / "configs"  # fields of published models, where they lie beside the project
REAL = {path.stem: json.loads(path.read_text()) for path in sorted(SHARED.glob("*.json"))}


def cut(config: dict[str, Any]) -> dict[str, Any]:
    """A config of two layers, and of what takes no seconds: a small vocabulary, and an eighth of a large width."""
    wide = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    if config.get("hidden_size", 0) > 1024:
        config = config | {name: max(config[name] // 8, 1) for name in wide}
    layers = {name: 2 for name in ("num_hidden_layers", "num_layers", "num_decoder_layers") if name in config}
    types = {"layer_types": config["layer_types"][-2:]} if "layer_types" in config else {}
    return config | layers | types | {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def save(folder: Path, config: dict[str, Any]) -> PreTrainedModel:
    """A folder of this config.json, word for word, beside random weights of its shapes."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", config)
    model = reference(AutoConfig.from_pretrained(folder, attn_implementation="eager"))
    torch.nn.Module.to(model, torch.float32)  # of the same values, so that rounding does not hide a difference
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.25)  # or a real width saturates attention
    model.save_pretrained(folder)
    write_json(folder / "config.json", config)
    return model


def load(folder: Path) -> Network:
    fields = {"weights.folder": str(folder), "vocabulary": "bytes", "model.dtype": "float32", "model.loss_chunk": None}
    return build(load_config(CONFIGS / "fine_tune.py", fields).model, 259)


def difference(network: Network, folder: Path, theirs: PreTrainedModel) -> float:
    """The largest difference of logits, in units of their deviation."""
    tokens = np.random.default_rng(1).integers(3, 300, (1, 17))
    ids = torch.from_numpy(tokens)
    ones, positions = jnp.ones((1, 17), int), jnp.arange(17)[None]
    batch = {"tokens": jnp.asarray(tokens), "segments": ones, "positions": positions}
    if network.config.kind == "t5":
        batch |= {"encoder_tokens": batch["tokens"], "encoder_segments": batch["segments"]}
    rest = {"decoder_input_ids": ids} if network.config.kind == "t5" else {}
    with torch.no_grad():
        expected = theirs(input_ids=ids, **rest).logits.numpy()
    params = load_params(open_weights(str(folder), network), network, None)
    found = np.asarray(network.logits(params, batch))
    return float(np.abs(found - expected).max() / expected.std())


@pytest.mark.parametrize("name", [*WILD, *REAL])
def test_a_config_as_it_is_published_loads_by_its_folder_alone(name: str, tmp_path: Path) -> None:
    theirs = save(tmp_path, cut({**WILD, **REAL}[name]))
    network = load(tmp_path)
    assert network.config.layers == 2
    assert difference(network, tmp_path, theirs) < 1e-4


def test_what_others_write_beside_the_tensors(tmp_path: Path) -> None:
    """A tied head that is written out, a buffer of frequencies, an index of older files, no metadata."""
    theirs = save(tmp_path, cut(WILD["a small Llama with the notes of its makers"]))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    tensors["model.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    assert difference(load(tmp_path), tmp_path, theirs) < 1e-4
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="differ, though the config says that they are one"):
        open_weights(str(tmp_path), load(tmp_path))


def test_an_epsilon_that_was_rounded_is_that_of_the_config(tmp_path: Path) -> None:
    config = cut(WILD["a Gemma 3 that was converted from another format"])
    save(tmp_path, config)
    network = load(tmp_path)
    rounded = network.config.model_copy(update={"norm_epsilon": 1e-6})
    open_weights(str(tmp_path), build(rounded, 259))
    with pytest.raises(UserError, match=r"config.model.norm_epsilon: 1.1e-06: the checkpoint .* has 9.99"):
        open_weights(str(tmp_path), build(rounded.model_copy(update={"norm_epsilon": 1.1e-6}), 259))


@pytest.mark.parametrize("name", ["a Phi-3 with its own class", "Phi-4-mini"])
def test_a_model_of_fused_projections_is_published_with_them(name: str, tmp_path: Path) -> None:
    theirs = save(tmp_path / "phi", cut(WILD[name]))
    run = ("--out", str(tmp_path / "run"), "--config", str(QUICKSTART), "--config.vocabulary.kind=bytes")
    assert cli.run(lambda: convert.main(["--src", str(tmp_path / "phi"), *run])) == 0
    assert cli.run(lambda: convert.main(["--src", str(tmp_path / "run"), "--out", str(tmp_path / "back")])) == 0
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    assert type(again).__name__ == "Phi3ForCausalLM"
    there, back = (load_file(tmp_path / name / "model.safetensors") for name in ("phi", "back"))
    assert {key: tensor.tobytes() for key, tensor in back.items()} == {key: t.tobytes() for key, t in there.items()}
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        np.testing.assert_allclose(again(ids).logits, theirs(ids).logits, atol=1e-5)


def test_adapters_of_single_projections_do_not_fit_fused_ones(tmp_path: Path) -> None:
    save(tmp_path / "phi", cut(WILD["a Phi-3 with its own class"]))
    fields = {"weights.folder": str(tmp_path / "phi"), "vocabulary": "bytes"}
    config = load_config(f"{CONFIGS}/fine_tune.py:lora", fields)
    run = open_run(tmp_path / "run", config)
    publish.copy_small_files(str(tmp_path / "phi"), run)
    with pytest.raises(UserError, match="holds several projections in one tensor, which adapters here do not fit"):
        conversion.export_adapters(run, str(tmp_path / "adapters"))
