"""Shared by the families of decoders: sizes, rotary positions, sliding windows, and their spelling in config.json."""

import math
import re

from coi_jax.common.errors import UserError
from coi_jax.families.config_values import OBJECT, ROPE_FIELDS, check_fields
from coi_jax.families.family import Fields

PLAIN_ROPE: Fields = dict(
    theta=10_000.0,
    everywhere=True,
    local_theta=None,
    scaling="none",
    factor=1.0,
    low_frequency=0.0,
    high_frequency=0.0,
    original_length=0,
    rotated_share=1.0,
    short_factors=(),
    long_factors=(),
    attention_factor=None,
    query_growth=0.0,
)

# Defaults that the classes of transformers have in common.
DEFAULTS: Fields = dict(
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
FIXED: Fields = dict(
    attention_bias=False,
    mlp_bias=False,
    partial_rotary_factor=1.0,
    is_decoder=False,
    is_encoder_decoder=False,
    add_cross_attention=False,
)
RENAMED = {
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

KNOWN_SCALINGS = "default, linear, llama3 and yarn"

# Beside a vision tower the decoder lies deeper; how deep depends on the version that wrote the checkpoint.
VISION_PREFIXES = (
    ("language_model.model.", "model."),
    ("model.language_model.", "model."),
    ("language_model.lm_head.", "lm_head."),
)
VISION_KEYS = r"(model\.)?(vision_tower|multi_modal_projector)\..*"


def sizes(layers: int, model_dim: int, heads: int, kv_heads: int, head_dim: int, mlp_dim: int) -> Fields:
    """Return the fields of a model section that differ between the models of one family.

    Args:
      layers: number of layers.
      model_dim: width of the residual stream.
      heads: query heads.
      kv_heads: key-value heads.
      head_dim: width of a head.
      mlp_dim: width of the MLP.
    """
    return dict(
        layers=layers,
        model_dim=model_dim,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        attention_scale_dim=head_dim,
    )


def read(values: Fields) -> Fields:
    """Return the fields of the model section that the config.json of any decoder decides."""
    section = {ours: values[theirs] for theirs, ours in RENAMED.items()}
    section["kv_heads"] = section["kv_heads"] or section["heads"]
    section["head_dim"] = section["head_dim"] or section["model_dim"] // section["heads"]
    section["attention_scale_dim"] = section["head_dim"]
    return section | _read_windows(values) | {"rope": _read_rope(values)}


def write(section: Fields) -> Fields:
    """Return the fields that the config.json of every decoder has, except the name of its activation."""
    values = {theirs: section[ours] for theirs, ours in RENAMED.items()}
    rope = section["rope"]
    longest = {"max_position_embeddings": rope["original_length"]} if rope["scaling"] == "dynamic" else {}
    return values | {"rope_theta": rope["theta"], "rope_scaling": _write_scaling(rope)} | longest


def layer_types(section: Fields) -> list[str]:
    """Return `layer_types` of config.json: for each layer, whether it attends within the sliding window or to all."""
    local = _local_layers(section["global_layer_interval"], section["layers"], section["first_global_layer"])
    return ["sliding_attention" if one and section["window"] else "full_attention" for one in local]


def write_windows(section: Fields, default_window: int) -> Fields:
    """Return the window and the layers that have it, for a class whose `sliding_window` may not be null.

    Args:
      section: the model section.
      default_window: is written where no layer has a window, as `layer_types` says then.
    """
    return {"layer_types": layer_types(section), "sliding_window": section["window"] or default_window}


def _read_windows(values: Fields) -> Fields:
    """Return `window` and which layers have none (`global_layer_interval`, `first_global_layer`)."""
    layers, interval = values["num_hidden_layers"], _global_interval(values.get("sliding_window_pattern"))
    is_used = values.get("use_sliding_window", True)
    window = values.get("sliding_window") if is_used else None
    local = _layers_with_window(values, window, interval)
    if not any(local):
        return dict(window=None, global_layer_interval=None, first_global_layer=None)
    if window is None:
        field = "sliding_window" if is_used else "use_sliding_window"
        hint = (
            "layers have a window by layer_types or by the class; give its width, or full_attention in all layer_types"
        )
        raise UserError(f"config.json: {field}", None if is_used else False, hint)
    first = local.index(False) + 1 if False in local else layers
    candidates: list[tuple[int | None, int | None]] = [
        (every, None) for every in (interval, None, *range(2, layers + 1))
    ]
    candidates += [(every, first) for every in range(first + 1, layers + 1)]
    for every, start in candidates:
        if local == _local_layers(every, layers, start):
            return dict(window=window, global_layer_interval=every, first_global_layer=start)
    hint = "the network here has windows in all layers, or in all but every n-th"
    raise UserError("config.json: layers with a window", [n for n, one in enumerate(local) if one], hint)


def _layers_with_window(values: Fields, window: int | None, interval: int | None) -> list[bool]:
    """Return for each layer whether it has a window, from whichever of the three spellings the file has.

    Args:
      values: of the config.json.
      window: its width; None where the file has none, or does not use it.
      interval: every how many layers one has no window, whether or not there is a width; None: no such rule.
    """
    layers, types = values["num_hidden_layers"], values.get("layer_types")
    if types is not None:
        is_read = (
            window is not None or "sliding_attention" in types
        )  # else all layers are alike, however many are named
        if set(types) - {"sliding_attention", "full_attention"} or (is_read and len(types) != layers):
            hint = f"give sliding_attention or full_attention for each of {layers} layers"
            raise UserError("config.json: layer_types", types, hint)
        return [name == "sliding_attention" for name in types] if is_read else [False] * layers
    if interval:
        return _local_layers(interval, layers)
    return [window is not None and number >= values.get("max_window_layers", 0) for number in range(layers)]


def _global_interval(pattern: int | str | None) -> int | None:
    """Return every how many layers one has no window; EXAONE 4 may spell it as letters, "LLLG"."""
    if isinstance(pattern, str):
        return len(pattern) if re.fullmatch("L+G", pattern) else None
    return pattern or None


def _local_layers(interval: int | None, layers: int, first: int | None = None) -> list[bool]:
    """Return for each layer whether it has a window, where every `interval`-th has none, from the `first` one on."""
    return [not interval or (number - (first or interval)) % interval != 0 for number in range(1, layers + 1)]


def _read_rope(values: Fields) -> Fields:
    """Return the section `rope`, from the spelling of version 4 or 5 of transformers."""
    name, local_theta = "rope_parameters", values.get("rope_local_base_freq") or None
    scaling: Fields = values[name] or {}
    if "full_attention" in scaling:  # in version 5, of a model whose layers with a window have positions of their own
        check_fields(scaling, dict.fromkeys(("full_attention", "sliding_attention"), OBJECT), f"{name}.")
        local = scaling.get("sliding_attention") or {}
        check_fields(local, ROPE_FIELDS, f"{name}.sliding_attention.")
        local_theta, scaling = local.get("rope_theta") or local_theta, scaling["full_attention"] or {}
    if not scaling:
        name, scaling = "rope_scaling", values["rope_scaling"] or {}
    check_fields(scaling, ROPE_FIELDS, f"{name}.")
    scaling = {field: value for field, value in scaling.items() if value is not None}
    if scaling and name == "rope_scaling" and not {"rope_type", "type"} & scaling.keys():  # default only in version 5
        raise UserError(f"config.json: {name}", scaling, f"has no rope_type; give {KNOWN_SCALINGS}, or null")
    theta = scaling.get("rope_theta", values["rope_theta"])
    share = scaling.get("partial_rotary_factor") or values.get("partial_rotary_factor") or 1.0
    if share != 1 and "partial_rotary_factor" not in values:
        raise UserError("config.json: rope_parameters", scaling, "the network here turns all channels of a head")
    rope = {"theta": theta, "local_theta": local_theta, "rotated_share": share}
    return PLAIN_ROPE | rope | _read_scaling(scaling, values)


def _read_scaling(scaling: Fields, values: Fields) -> Fields:
    name = scaling.get("rope_type", scaling.get("type", "default"))
    try:
        if "original_max_position_embeddings" in values and "short_factor" in scaling:
            return _read_longrope(scaling, values)  # whatever its name: "longrope", in older files "su" or "yarn"
        match name:
            case "default":
                return {}
            case "linear":
                return {"scaling": name, "factor": scaling["factor"]}
            case "llama3":
                return {
                    "scaling": name,
                    "factor": scaling["factor"],
                    "low_frequency": scaling["low_freq_factor"],
                    "high_frequency": scaling["high_freq_factor"],
                    "original_length": scaling["original_max_position_embeddings"],
                }
            case "yarn":
                return _read_yarn(scaling, values)
            case "dynamic" if length := values.get("max_position_embeddings"):
                return {"scaling": name, "factor": scaling["factor"], "original_length": length}
    except KeyError as error:
        raise UserError("config.json: rope_scaling", scaling, f"{name} needs {error}") from None
    hint = f"{name} is not computed here, but {KNOWN_SCALINGS}"
    if name == "dynamic":
        hint += "; give max_position_embeddings, up to which it changes nothing, or take rope_scaling out"
    raise UserError("config.json: rope_scaling", scaling, hint)


def _read_yarn(scaling: Fields, values: Fields) -> Fields:
    """Return the fields of YaRN; raise UserError where it is not truncated to whole pairs of channels."""
    factor = scaling["factor"]
    mscale, mscale_all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    attention = scaling.get("attention_factor")
    if attention is None and mscale and mscale_all_dim:
        attention = yarn_attention_factor(factor, mscale) / yarn_attention_factor(factor, mscale_all_dim)
    if scaling.get("truncate") is False:
        hint = "the network here computes YaRN truncated to whole pairs of channels; take a checkpoint that has it so"
        raise UserError("config.json: rope_scaling", scaling, hint)
    is_papers = attention is None or math.isclose(attention, yarn_attention_factor(factor), rel_tol=1e-6)
    original = scaling.get("original_max_position_embeddings") or values["max_position_embeddings"]
    if original is None:
        raise KeyError("original_max_position_embeddings")
    return {
        "scaling": "yarn",
        "factor": factor,
        "low_frequency": scaling.get("beta_slow") or 1.0,
        "high_frequency": scaling.get("beta_fast") or 32.0,
        "original_length": original,
        "attention_factor": None if is_papers else attention,
    }


def _read_longrope(scaling: Fields, values: Fields) -> Fields:
    """Return the fields of LongRoPE; raise UserError where attention is scaled by another rule than the paper's."""
    original = scaling.get("original_max_position_embeddings") or values["original_max_position_embeddings"]
    factor = (values["max_position_embeddings"] or original) / original
    due, attention = longrope_attention_factor(factor, original), scaling.get("attention_factor")
    if attention is not None and not math.isclose(attention, due, rel_tol=1e-6):
        hint = f"the network here computes LongRoPE with an attention_factor of {due:.7g}, as its lengths have it"
        raise UserError("config.json: rope_scaling", scaling, hint)
    return {
        "scaling": "longrope",
        "factor": factor,
        "original_length": original,
        "short_factors": tuple(map(float, scaling["short_factor"])),
        "long_factors": tuple(map(float, scaling["long_factor"])),
    }


def longrope_attention_factor(factor: float, original_length: int) -> float:
    """Return what LongRoPE multiplies rotated queries and keys by (Ding et al. 2024, section 3.2).

    Args:
      factor: the longest length in units of the original one.
      original_length: positions that the model was first trained on.
    """
    return math.sqrt(1 + math.log(factor) / math.log(original_length)) if factor > 1 else 1.0


def yarn_attention_factor(factor: float, mscale: float = 1.0) -> float:
    """Return what YaRN multiplies rotated queries and keys by (Peng et al. 2023, section 3.4)."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def _write_scaling(rope: Fields) -> Fields | None:
    if rope["scaling"] in ("none", "longrope"):  # LongRoPE is written by the families that have it
        return None
    values = {"rope_type": rope["scaling"], "factor": rope["factor"]}
    if rope["scaling"] == "llama3":
        names = ("low_freq_factor", "high_freq_factor")
    elif rope["scaling"] == "yarn":
        names = ("beta_slow", "beta_fast")
        values |= {"attention_factor": rope["attention_factor"]} if rope["attention_factor"] else {}
    else:
        return values
    original = {"original_max_position_embeddings": rope["original_length"]}
    return values | dict(zip(names, (rope["low_frequency"], rope["high_frequency"]), strict=True)) | original
