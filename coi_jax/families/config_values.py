"""The values that the fields of a published config.json may have.

Python and pydantic take true for 1, 0 for "none" and a text for its letters, so that a damaged file would describe
another network than `transformers` builds of it, or fail late. Each field that a family reads has its kind of value
here.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coi_jax.common.errors import UserError
from coi_jax.common.limits import LARGEST_INTEGER

MOST_LAYERS = 10_000  # everything that reads a config takes time for each layer


@dataclass(frozen=True)
class ValueKind:
    """The values that a field may have, besides null.

    Attributes:
      name: of such a value, for an error: "is no …".
      holds: whether a value is one.
    """

    name: str
    holds: Callable[[Any], bool]


def _whole(least: int, most: int = LARGEST_INTEGER) -> ValueKind:
    return ValueKind(
        f"whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most
    )


def _number(above: float, most: float) -> ValueKind:
    return ValueKind(
        f"number above {above:g}, at most {most:g}", lambda value: _is_number(value) and above < value <= most
    )


def _number_from_zero(most: float) -> ValueKind:
    return ValueKind(f"number from 0 to {most:g}", lambda value: _is_number(value) and 0 <= value <= most)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _list_of(kind: ValueKind) -> ValueKind:
    return ValueKind(f"list, of which each entry is a {kind.name}", lambda value: _is_list_of(kind, value))


def _is_list_of(kind: ValueKind, value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(kind.holds, value))


FLAG = ValueKind("boolean (true or false)", lambda value: isinstance(value, bool))
TEXT = ValueKind("text", lambda value: isinstance(value, str))
OBJECT = ValueKind("object", lambda value: isinstance(value, dict))
SIZE, COUNT, LAYERS = _whole(1), _whole(0), _whole(1, MOST_LAYERS)
EPSILON, SHARE, FACTOR, CAP = _number(0.0, 0.1), _number(0.0, 1.0), _number(0.0, 1e6), _number(0.0, 1e6)
ROTARY_BASE = _number(1.0, 1e15)
LOCAL_ROTARY_BASE = ValueKind(
    f"{ROTARY_BASE.name} (or 0: that of all layers)",
    lambda value: ROTARY_BASE.holds(value) or (_is_number(value) and value == 0),
)
PATTERN = ValueKind(
    'whole number from 0 (or letters such as "LLLG")',
    lambda value: bool(re.fullmatch("L+G", value)) if isinstance(value, str) else COUNT.holds(value),
)
SCALE_SIZE = ValueKind(SIZE.name, lambda value: _is_number(value) and value == int(value) and SIZE.holds(int(value)))

# By the names that the classes of `transformers` give their fields; all of them mean the same in every family.
FIELDS: dict[str, ValueKind] = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "head_dim", "d_model", "d_kv", "d_ff"), SIZE),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads"), SIZE),
    **dict.fromkeys(("relative_attention_num_buckets", "relative_attention_max_distance"), SIZE),
    **dict.fromkeys(("max_position_embeddings", "original_max_position_embeddings"), SIZE),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_epsilon"), EPSILON),
    **dict.fromkeys(("tie_word_embeddings", "use_sliding_window"), FLAG),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), CAP),
    **dict.fromkeys(("resid_pdrop", "embd_pdrop"), _number_from_zero(1.0)),
    **dict.fromkeys(("rope_scaling", "rope_parameters"), OBJECT),
    "rope_theta": ROTARY_BASE,
    "query_pre_attn_scalar": SCALE_SIZE,
    "rope_local_base_freq": LOCAL_ROTARY_BASE,
    "partial_rotary_factor": SHARE,
    "sliding_window": SIZE,
    "sliding_window_pattern": PATTERN,
    "max_window_layers": COUNT,
    "layer_types": _list_of(TEXT),
    "no_rope_layers": _list_of(_whole(0, 1)),
    "no_rope_layer_interval": SIZE,
    "feed_forward_proj": TEXT,
}
# Those of the object `rope_scaling`, or `rope_parameters`.
ROPE_FIELDS: dict[str, ValueKind] = {
    **dict.fromkeys(("rope_type", "type"), TEXT),
    **dict.fromkeys(("factor", "attention_factor", "beta_fast", "beta_slow"), FACTOR),
    **dict.fromkeys(("low_freq_factor", "high_freq_factor", "mscale", "mscale_all_dim"), _number_from_zero(1e6)),
    **dict.fromkeys(("short_factor", "long_factor"), _list_of(FACTOR)),
    "rope_theta": ROTARY_BASE,
    "partial_rotary_factor": SHARE,
    "original_max_position_embeddings": SIZE,
    "truncate": FLAG,
    "llama_4_scaling_beta": _number_from_zero(1e6),
}


def check_fields(values: Mapping[str, Any], kinds: Mapping[str, ValueKind] = FIELDS, prefix: str = "") -> None:
    """Raise UserError where a field of a config.json has a value of another kind than its own; null passes.

    Args:
      values: the fields; those without a kind pass.
      kinds: by the names of the fields.
      prefix: of the names, in an error about an object within the file.
    """
    for name, value in values.items():
        if name in kinds and value is not None and not kinds[name].holds(value):
            hint = f"is no {kinds[name].name}; correct it, or fetch the file again"
            raise UserError(f"config.json: {prefix}{name}", value, hint)


def token_ids(values: Mapping[str, Any], field: str, file: str, rows: int = LARGEST_INTEGER) -> list[int]:
    """Return the ids that a field such as `eos_token_id` names: one, several, or none where it is null or absent.

    Args:
      values: the fields of a file.
      field: the name of the field.
      file: the name of the file, for an error.
      rows: of the model's embedding.

    Raises:
      UserError: it is an empty list, or something in it is no id of a token.
    """
    value = values.get(field)
    none = (None, -1) if field == "pad_token_id" else (None,)  # -1: as the first conversions of Llama 1 spell it
    ids: Sequence[Any] = value if isinstance(value, list) else [] if value in none else [value]
    kind = _whole(0, rows - 1)
    if value == []:
        raise UserError(
            f"{file}: {field}", value, "is an empty list; name an id, or take it out: the tokenizer names its own"
        )
    if not all(map(kind.holds, ids)):
        hint = f"is neither the id of a token (a {kind.name}) nor a list of such ids"
        raise UserError(f"{file}: {field}", value, f"{hint}; correct it, or take it out: the tokenizer names its own")
    return list(ids)
