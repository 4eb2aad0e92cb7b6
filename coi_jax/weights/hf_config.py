"""Convert the config.json of a published checkpoint to the model section of a run's config, and back.

Every field of config.json is one of three: it says what the network is (`Family.defaults`), it must have the one value
that the network here computes (`Family.fixed`), or it changes nothing in what the network computes (`IGNORED_FIELDS`).
A field that is none of them is an error, unless it is off. Where a file leaves a field out, the default of the class of
`transformers` counts.
"""

import re
from collections.abc import Mapping
from typing import Any

from coi_jax.common.errors import UserError, nearest
from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.families.family import Family, Fields
from coi_jax.families.registry import FAMILIES

# Fields about names, text, training, generation or torch, and fields that follow from others.
IGNORED_FIELDS = {
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
}
IGNORED_NAMES = re.compile(r"is_\w+_config|transformers\.js\w*|unsloth_\w+")  # notes of those who made the checkpoint
LAYERS, MOST_LAYERS = {"num_hidden_layers", "num_layers", "num_decoder_layers"}, 10_000
REFUSED = {"quantization_config": "its weights are quantised; take the checkpoint in full precision"}


def from_hf_config(values: Mapping[str, Any]) -> Fields:
    """Return the fields of a model section that a config.json decides: all but those of the run (dropout, dtype, …).

    Raises:
      UserError: the model type is unknown, or a field has a value that the network here does not compute.
    """
    values = text_config(values)
    family = FAMILIES[values["model_type"]]
    _check(family, values)
    given = {name: value for name, value in values.items() if name in family.defaults}
    _check_layers(given)
    try:
        return family.switches | family.read(family.defaults | given)
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        hint = f"is not as {family.architecture} has it ({type(error).__name__}: {error}); fetch the file again"
        raise UserError("config.json", given, hint) from None


def text_config(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config.json that describes the language model; raise UserError where its type is unknown."""
    kind = values.get("model_type")
    nested = {family.nested_type: name for name, family in FAMILIES.items() if family.nested_type}
    if isinstance(kind, str) and kind in nested and isinstance(values.get("text_config"), dict):
        return text_config({"model_type": nested[kind]} | values["text_config"])
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError("config.json: model_type", kind, nearest(str(kind), [*FAMILIES, *nested]))
    return values


def _check(family: Family, values: Mapping[str, Any]) -> None:
    kind = family.model_type
    for name, value in values.items():
        if name in REFUSED and value is not None:
            raise UserError(f"config.json: {name}", value, REFUSED[name])
        if name in family.fixed:
            fixed = family.fixed[name]
            if value is not None and value != fixed:
                raise UserError(
                    f"config.json: {name}", value, f"the network here only computes a {kind} with {fixed!r}"
                )
        elif value and not (name in family.defaults or name in IGNORED_FIELDS or IGNORED_NAMES.fullmatch(name)):
            hint = f"is no field of {kind} that is known here; take it out if it changes nothing that is computed"
            raise UserError(f"config.json: {name}", value, hint)


def _check_layers(values: Mapping[str, Any]) -> None:
    """Raise UserError where a count of layers is no such; everything after it takes time for each layer."""
    for name in LAYERS & values.keys():
        if type(values[name]) is not int or not 0 < values[name] <= MOST_LAYERS:
            raise UserError(
                f"config.json: {name}", values[name], f"is no whole number from 1 to {MOST_LAYERS}; correct it"
            )


def to_hf_config(config: DecoderConfig | T5Config, vocabulary_size: int, model_type: str = "") -> Fields:
    """Return the fields of a config.json that say what a network is: `from_hf_config` reads it back.

    Args:
      config: the model section.
      vocabulary_size: rows of the embedding.
      model_type: the preferred family; another is taken if this one does not compute what the network does.

    Raises:
      UserError: no published family computes what the network does; it names a field that none has.
    """
    section = config.model_dump() | {"vocabulary_size": vocabulary_size}
    candidates = [family for family in FAMILIES.values() if family.switches["kind"] == config.kind]
    differences = {}
    for family in sorted(candidates, key=lambda family: family.model_type != model_type):
        values = {"model_type": family.model_type, "architectures": [family.architecture]} | family.write(section)
        found = from_hf_config(values)
        unlike = [name for name in found if found[name] != section[name]]
        if not unlike:
            return values
        differences[family.model_type] = unlike
    closest = min(differences, key=lambda name: len(differences[name]))
    field = differences[closest][0]
    hint = f"no published family has this together with the other fields; {closest} is the nearest"
    raise UserError(f"config.model.{field}", section[field], hint)


def network_fields(kind: str) -> tuple[str, ...]:
    """Return the fields of a model section ("decoder" or "t5") that say what the network is, and not how it is run."""
    family = next(family for family in FAMILIES.values() if family.switches["kind"] == kind)
    return tuple(from_hf_config({"model_type": family.model_type}))


def check_same_network(section: Mapping[str, Any], expected: Mapping[str, Any], source: object) -> None:
    """Raise UserError for the first field of a model section that a checkpoint contradicts.

    Args:
      section: the model section of the run.
      expected: `from_hf_config` of the checkpoint.
      source: the checkpoint, for the error.
    """
    for name in sorted(expected, key=lambda name: name != "kind"):
        if section[name] != expected[name]:
            raise UserError(f"config.model.{name}", section[name], f"the checkpoint {source} has {expected[name]!r}")
