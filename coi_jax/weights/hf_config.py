"""A published checkpoint's config.json and the model section of a run's config, each from the other.

Every field of config.json is one of three: it says what the network is (`READ`), it must have the one value that the
network here computes (`FIXED`), or it changes nothing in what the network computes (`FREE`). A field that is none of
them stops, unless it is off. What a file leaves out has the default of `transformers`' class.
"""

import re
from collections.abc import Mapping
from typing import Any

from coi_jax.common.errors import UserError, nearest
from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.families.presets import FAMILIES, PLAIN_ROPE

Fields = dict[str, Any]

_DECODER: Fields = dict(
    vocab_size=32_000,
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    head_dim=None,
    rms_norm_eps=1e-6,
    rope_theta=10_000.0,
    rope_scaling=None,
    rope_parameters=None,
    tie_word_embeddings=False,
)
_QWEN = _DECODER | dict(
    vocab_size=151_936,
    intermediate_size=22_016,
    num_key_value_heads=32,
    use_sliding_window=False,
    sliding_window=4096,
    max_window_layers=28,
    layer_types=None,
)
_GEMMA = _DECODER | dict(
    hidden_size=2304,
    intermediate_size=9216,
    num_hidden_layers=26,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=256,
    query_pre_attn_scalar=256,
    sliding_window=4096,
    layer_types=None,
    sliding_window_pattern=2,
    tie_word_embeddings=True,
    attn_logit_softcapping=None,
    final_logit_softcapping=None,
)
_T5: Fields = dict(
    vocab_size=32_128,
    d_model=512,
    d_kv=64,
    d_ff=2048,
    num_layers=6,
    num_decoder_layers=None,
    num_heads=8,
    relative_attention_num_buckets=32,
    relative_attention_max_distance=128,
    layer_norm_epsilon=1e-6,
    feed_forward_proj="relu",
    tie_word_embeddings=True,
)
# What says what the network is, with the defaults of the classes of transformers.
READ: dict[str, Fields] = {
    "llama": _DECODER | dict(intermediate_size=11_008, num_key_value_heads=None),
    "mistral": _DECODER | dict(intermediate_size=14_336, num_key_value_heads=8, sliding_window=4096),
    "qwen2": _QWEN,
    "qwen3": _QWEN | dict(head_dim=128),
    "gemma2": _GEMMA | dict(vocab_size=256_000, attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
    "gemma3_text": _GEMMA
    | dict(vocab_size=262_208, rope_theta=1_000_000.0, rope_local_base_freq=10_000.0, sliding_window_pattern=6),
    "exaone4": _DECODER
    | dict(
        vocab_size=102_400,
        intermediate_size=16_384,
        num_key_value_heads=32,
        rms_norm_eps=1e-5,
        sliding_window=4096,
        sliding_window_pattern=4,
        layer_types=None,
    ),
    "t5": _T5,
    "mt5": _T5
    | dict(
        vocab_size=250_112,
        d_ff=1024,
        num_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
}

_FIXED_DECODER: Fields = dict(
    attention_bias=False,
    mlp_bias=False,
    hidden_act="silu",
    partial_rotary_factor=1.0,
    is_decoder=False,
    is_encoder_decoder=False,
    add_cross_attention=False,
)
_FIXED_GEMMA: Fields = {name: value for name, value in _FIXED_DECODER.items() if name != "hidden_act"} | dict(
    hidden_activation="gelu_pytorch_tanh", use_bidirectional_attention=False
)
_FIXED_T5: Fields = dict(is_encoder_decoder=True, pad_token_id=0, decoder_start_token_id=0, tie_encoder_decoder=False)
# The one value that a field may have where it is given.
FIXED: dict[str, Fields] = {
    "llama": _FIXED_DECODER,
    "mistral": _FIXED_DECODER,
    "qwen2": _FIXED_DECODER,
    "qwen3": _FIXED_DECODER,
    "exaone4": _FIXED_DECODER,
    "gemma2": _FIXED_GEMMA,
    "gemma3_text": _FIXED_GEMMA,
    "t5": _FIXED_T5,
    "mt5": _FIXED_T5,
}

# What is of names, of text, of training, of generating, of torch, or follows from another field.
FREE = {
    "model_type",
    "architectures",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "_name_or_path",
    "name_or_path",
    "auto_map",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "tokenizer_class",
    "prefix",
    "id2label",
    "label2id",
    "num_labels",
    "task_specific_params",
    "problem_type",
    "finetuning_task",
    "vocab_type",
    "max_position_embeddings",
    "n_positions",
    "model_max_length",
    "max_sequence_length",
    "initializer_range",
    "initializer_factor",
    "attention_dropout",
    "resid_dropout",
    "embd_dropout",
    "dropout_rate",
    "classifier_dropout",
    "use_cache",
    "output_past",
    "cache_implementation",
    "pretraining_tp",
    "gradient_checkpointing",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "return_dict",
    "output_scores",
    "chunk_size_feed_forward",
    "use_bfloat16",
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "num_return_sequences",
    "dense_act_fn",
    "is_gated_act",
    "hidden_act",
    "_sliding_window_pattern",
    "unsloth_version",
    "unsloth_fixed",
}
REFUSED = {"quantization_config": "its weights are quantised; take the checkpoint in full precision"}

# The names of fields that mean the same.
_RENAMED_DECODER = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "layers",
    "hidden_size": "model_dim",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "mlp_dim",
    "rms_norm_eps": "norm_epsilon",
    "tie_word_embeddings": "tied_embedding",
}
_RENAMED_T5 = {
    "vocab_size": "vocabulary_size",
    "num_layers": "layers",
    "num_decoder_layers": "decoder_layers",
    "d_model": "model_dim",
    "num_heads": "heads",
    "d_kv": "head_dim",
    "d_ff": "mlp_dim",
    "relative_attention_num_buckets": "relative_buckets",
    "relative_attention_max_distance": "relative_max_distance",
    "layer_norm_epsilon": "norm_epsilon",
    "tie_word_embeddings": "tied_embedding",
}
_RENAMED_GEMMA = {
    "query_pre_attn_scalar": "attention_scale_dim",
    "attn_logit_softcapping": "attention_softcap",
    "final_logit_softcapping": "logits_softcap",
}
_T5_MLPS = {"relu": "relu", "gated-gelu": "gated_gelu"}

# What a family has that no field says.
_SWITCHES = (
    "kind",
    "activation",
    "norm_offset",
    "norm_placement",
    "qk_norm",
    "qkv_bias",
    "scaled_embedding",
    "attention_softcap",
    "logits_softcap",
)
_FAMILY = {
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen25",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "exaone4": "exaone4",
}
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "exaone4": "Exaone4ForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
}


def architecture(values: Mapping[str, Any]) -> Fields:
    """The fields of a model section that a config.json decides: all but those of the run (dropout, dtype, …).

    Raises:
      UserError: the model type is unknown, or a field has a value that the network here does not compute.
    """
    values = text_config(values)
    kind = values["model_type"]
    _check(kind, values)
    given = READ[kind] | {name: value for name, value in values.items() if name in READ[kind]}
    return _t5(given) if kind in ("t5", "mt5") else _decoder(kind, given)


def text_config(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model; raises UserError where its type is unknown."""
    kind = values.get("model_type")
    if kind == "gemma3" and isinstance(values.get("text_config"), dict):
        return {"model_type": "gemma3_text"} | values["text_config"]
    if kind not in READ:
        raise UserError("config.json: model_type", kind, nearest(str(kind), [*READ, "gemma3"]))
    return values


def _check(kind: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in REFUSED:
            raise UserError(f"config.json: {name}", value, REFUSED[name])
        if name in FIXED[kind]:
            due = FIXED[kind][name]
            if value is not None and value != due:
                raise UserError(f"config.json: {name}", value, f"the network here only computes a {kind} with {due!r}")
        elif name not in READ[kind] and name not in FREE and value:
            hint = f"is no field of {kind} that is known here; take it out if it changes nothing that is computed"
            raise UserError(f"config.json: {name}", value, hint)


def _t5(given: Fields) -> Fields:
    if given["feed_forward_proj"] not in _T5_MLPS:
        hint = f"the network here has {' and '.join(_T5_MLPS)}"
        raise UserError("config.json: feed_forward_proj", given["feed_forward_proj"], hint)
    fields = {ours: given[theirs] for theirs, ours in _RENAMED_T5.items()}
    fields["decoder_layers"] = fields["decoder_layers"] or fields["layers"]
    return fields | {"kind": "t5", "mlp": _T5_MLPS[given["feed_forward_proj"]]}


def _decoder(kind: str, given: Fields) -> Fields:
    fields = {name: FAMILIES[_FAMILY[kind]][name] for name in _SWITCHES}
    fields |= {ours: given[theirs] for theirs, ours in _RENAMED_DECODER.items()}
    fields["kv_heads"] = fields["kv_heads"] or fields["heads"]
    fields["head_dim"] = fields["head_dim"] or fields["model_dim"] // fields["heads"]
    fields["attention_scale_dim"] = fields["head_dim"]
    if "query_pre_attn_scalar" in given:
        fields |= {ours: given[theirs] or 0.0 for theirs, ours in _RENAMED_GEMMA.items()}
    window, global_layer_interval = _windows(kind, given)
    rope = _rope(given) | {"everywhere": kind != "exaone4" or given["sliding_window"] is None}
    return fields | {"window": window, "global_layer_interval": global_layer_interval, "rope": rope}


def _windows(kind: str, given: Fields) -> tuple[int, int]:
    """The window, and every how many layers there is one without: (0, 0) where no layer has a window."""
    window = given.get("sliding_window") or 0
    if not given.get("use_sliding_window", True) or not window:
        return 0, 0
    layers = given["num_hidden_layers"]
    pattern = _pattern(given.get("sliding_window_pattern"))
    if given.get("layer_types"):
        local = [name == "sliding_attention" for name in given["layer_types"]]
        if len(local) != layers or set(given["layer_types"]) - {"sliding_attention", "full_attention"}:
            hint = f"give sliding_attention or full_attention for each of {layers} layers"
            raise UserError("config.json: layer_types", given["layer_types"], hint)
    elif pattern:
        local = _alternate(pattern, layers)
    else:
        local = [number >= given.get("max_window_layers", 0) for number in range(layers)]
    if not any(local):
        return 0, 0
    every = next((n for n in (pattern, 0, *range(2, layers + 1)) if local == _alternate(n, layers)), None)
    if every is None:
        hint = "the network here has windows in all layers, or in all but every n-th"
        raise UserError("config.json: layers with a window", [n for n, one in enumerate(local) if one], hint)
    return window, every


def _pattern(value: int | str | None) -> int:
    """Every how many layers one has no window; EXAONE 4 may spell it as letters, "LLLG"."""
    if isinstance(value, str):
        return len(value) if re.fullmatch("L+G", value) else 0
    return value or 0


def _alternate(every: int, layers: int) -> list[bool]:
    """Which layers have a window where every n-th has none."""
    return [not every or number % every != 0 for number in range(1, layers + 1)]


def _rope(given: Fields) -> Fields:
    """The rotary positions, as versions 4 and 5 of transformers spell them."""
    newer, local_theta = given["rope_parameters"], given.get("rope_local_base_freq", 0.0)
    if newer and "full_attention" in newer:
        local_theta = newer["sliding_attention"].get("rope_theta", local_theta)
        newer = newer["full_attention"]
    scaling = newer or given["rope_scaling"] or {}
    theta = scaling.get("rope_theta", given["rope_theta"])
    name = scaling.get("rope_type", scaling.get("type", "default"))
    fields = PLAIN_ROPE | {"theta": theta, "local_theta": local_theta}
    try:
        if name == "linear":
            fields |= {"scaling": name, "factor": scaling["factor"]}
        elif name == "llama3":
            fields |= {
                "scaling": name,
                "factor": scaling["factor"],
                "low_frequency": scaling["low_freq_factor"],
                "high_frequency": scaling["high_freq_factor"],
                "original_length": scaling["original_max_position_embeddings"],
            }
        elif name != "default":
            raise UserError("config.json: rope_scaling", scaling, "the network here has default, linear and llama3")
    except KeyError as error:
        raise UserError("config.json: rope_scaling", scaling, f"{name} needs {error}") from None
    return fields


def published(config: DecoderConfig | T5Config, vocabulary_size: int, kind: str = "") -> Fields:
    """The fields of a config.json that say what a network is: what `architecture` reads back as the same.

    Args:
      config: of the network.
      vocabulary_size: rows of its embedding.
      kind: the model type to write it as, if it can be; else, and where "", the first that can.

    Raises:
      UserError: no published family computes what the network does; it names a field that none has.
    """
    section = config.model_dump() | {"vocabulary_size": vocabulary_size}
    kinds = ["t5", "mt5"] if isinstance(config, T5Config) else list(ARCHITECTURES)[:-2]
    differences = {}
    for candidate in sorted(kinds, key=lambda name: name != kind):
        values = _write_t5(section) if isinstance(config, T5Config) else _write_decoder(candidate, section)
        values = {"model_type": candidate, "architectures": [ARCHITECTURES[candidate]]} | values
        found = architecture(values)
        unlike = [name for name in found if found[name] != section[name]]
        if not unlike:
            return values
        differences[candidate] = unlike
    nearest_kind = min(differences, key=lambda name: len(differences[name]))
    field = differences[nearest_kind][0]
    hint = f"no published family has this together with the other fields; {nearest_kind} is the nearest"
    raise UserError(f"config.model.{field}", section[field], hint)


def _write_t5(section: Fields) -> Fields:
    values = {theirs: section[ours] for theirs, ours in _RENAMED_T5.items()}
    proj = {ours: theirs for theirs, ours in _T5_MLPS.items()}[section["mlp"]]
    return values | {
        "feed_forward_proj": proj,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "dropout_rate": section["dropout"],
    }


def _write_decoder(kind: str, section: Fields) -> Fields:
    values = {theirs: section[ours] for theirs, ours in _RENAMED_DECODER.items()}
    rope = section["rope"]
    values |= {"rope_theta": rope["theta"], "rope_scaling": _write_scaling(rope)}
    values |= {name: value for name, value in FIXED[kind].items() if name.startswith("hidden_act")}
    if kind.startswith("gemma"):
        values |= {theirs: section[ours] or None for theirs, ours in _RENAMED_GEMMA.items()}
    if kind == "gemma3_text":
        values |= {
            "rope_local_base_freq": rope["local_theta"],
            "sliding_window_pattern": section["global_layer_interval"],
        }
    return values | _write_windows(kind, section)


def _write_scaling(rope: Fields) -> Fields | None:
    if rope["scaling"] == "none":
        return None
    values = {"rope_type": rope["scaling"], "factor": rope["factor"]}
    if rope["scaling"] == "llama3":
        values |= {
            "low_freq_factor": rope["low_frequency"],
            "high_freq_factor": rope["high_frequency"],
            "original_max_position_embeddings": rope["original_length"],
        }
    return values


def _write_windows(kind: str, section: Fields) -> Fields:
    window, every = section["window"], section["global_layer_interval"]
    if kind == "mistral":
        return {"sliding_window": window or None}
    if "layer_types" not in READ[kind]:
        return {}
    kinds = [local and bool(window) for local in _alternate(every, section["layers"])]
    values: Fields = {"layer_types": ["sliding_attention" if local else "full_attention" for local in kinds]}
    if window or kind.startswith("gemma"):
        values["sliding_window"] = window or READ[kind]["sliding_window"]
    if kind.startswith("qwen"):
        values |= {"use_sliding_window": bool(window), "max_window_layers": 0 if window else section["layers"]}
    if kind == "exaone4":
        values |= {"sliding_window": window or None, "sliding_window_pattern": every}
    return values


def fields(kind: str) -> tuple[str, ...]:
    """The fields of a model section ("decoder" or "t5") that say what the network is, and not how it is run."""
    return tuple(architecture({"model_type": "t5" if kind == "t5" else "llama"}))


def check_same(section: Mapping[str, Any], due: Mapping[str, Any], source: object) -> None:
    """Raises UserError for the first field of a model section that a checkpoint contradicts.

    Args:
      section: the run's.
      due: `architecture` of the checkpoint.
      source: the checkpoint.
    """
    for name in sorted(due, key=lambda name: name != "kind"):
        if section[name] != due[name]:
            raise UserError(f"config.model.{name}", section[name], f"the checkpoint {source} has {due[name]!r}")
