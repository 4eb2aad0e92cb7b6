"""Read the config.json of a published model as fields of a model section.

A field of config.json says what the network is (`Family.defaults`), must have the one value that the network here
computes (`Family.fixed`), or changes nothing in what the network computes (`IGNORED_FIELDS`): those are all that the
class of `transformers` reads. Any other field is only noted (`unread_fields`), unless it may mean another network: by
its name, or because the checkpoint brings a class of its own. Where a file leaves a field out, or holds null where the
class needs a value, the default of that class counts. `coi_jax.families.config_values` says what a
field may hold at all.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from coi_jax.common.errors import UserError, nearest
from coi_jax.common.wording import with_article
from coi_jax.families.config_values import check_fields
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
REFUSED = {"quantization_config": "its weights are quantized; take the checkpoint in full precision"}
# Fields that may stand beside `text_config` instead of in it.
OF_THE_WHOLE = ("quantization_config", "tie_word_embeddings")
# Names by which other architectures compute; the class of the family reads none of them.
OTHER_NETWORKS = re.compile(r"\w*(multiplier|expert|moe|alibi|softcap|clip_qkv|logits?_scal|mrope|no_rope)\w*")
# Fields in which null has a meaning of its own.
NULLABLE = {"num_key_value_heads", "head_dim", "sliding_window", "attn_logit_softcapping", "final_logit_softcapping"}
# Kinds of models that are not computed here, by what their types have in common.
OTHER_KINDS = {
    r".*(moe|mixtral|gpt_oss|dbrx|deepseek_v[23]|arctic|olmoe|llama4).*": "a mixture of experts",
    r".*(vl|vision|llava|paligemma|pixtral|mistral3|idefics|smolvlm|mllama|gemma3n|audio|omni|multimodal|internvl).*": (
        "a model of images or sound beside text"
    ),
    r".*(mamba|rwkv|jamba|zamba|falcon_h1|lfm2|bamba|recurrent|qwen3_next|granitemoehybrid).*": "a recurrent model",
    r"(bert|roberta|deberta|electra|modernbert).*": "an encoder alone",
}
# Those whose encoder and decoder are not T5's.
OTHER_ENCODER_DECODERS = r"(t5gemma|bart|mbart|pegasus|umt5|longt5|switch|m2m|nllb|marian|led|prophetnet).*"


def from_hf_config(values: Mapping[str, Any]) -> Fields:
    """Return the fields of a model section that a config.json decides: all but those of the run (dropout, dtype, …).

    Raises:
      UserError: the model type is unknown, or a field has a value that the network here does not compute.
    """
    values = text_config(values)
    family = FAMILIES[values["model_type"]]
    _check(family, values)
    length = {"max_position_embeddings": values.get("max_position_embeddings")}  # which YaRN may stretch from
    given = _given(family, values) | length
    check_fields(given)
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
        outer = {name: values[name] for name in OF_THE_WHOLE if name in values}
        return text_config({"model_type": nested[kind]} | outer | values["text_config"])
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise _unknown_type(kind, [*FAMILIES, *nested])
    return values


def _unknown_type(kind: object, known: Sequence[str]) -> UserError:
    """Return the error about a model type that is not computed here, with what would work."""
    what = next((what for types, what in OTHER_KINDS.items() if re.fullmatch(types, str(kind))), None)
    if kind is None:
        return UserError("config.json", "model_type", "missing: it says which network this is; fetch the file again")
    hint = nearest(str(kind), list(known))
    if what is not None:
        hint = f"is {what}, which is not computed here; take a dense language model of text: {', '.join(known)}"
    if re.fullmatch(OTHER_ENCODER_DECODERS, str(kind)):
        hint = "is an encoder-decoder of another kind than T5, which is not computed here; take a T5, FLAN-T5 or mT5 "
        hint += "(t5, mt5), or a decoder, as Gemma 2 and 3 are (gemma2, gemma3, gemma3_text)"
    return UserError("config.json: model_type", kind, hint)


def unread_fields(values: Mapping[str, Any]) -> list[str]:
    """Return the fields of a config.json that are on, and that neither this project nor `transformers` knows."""
    values = text_config(values)
    family = FAMILIES[values["model_type"]]
    return [name for name, value in values.items() if value and not _is_known(family, name)]


def _is_known(family: Family, name: str) -> bool:
    return name in {*family.defaults, *family.fixed, *IGNORED_FIELDS, *REFUSED} or bool(IGNORED_NAMES.fullmatch(name))


def _check(family: Family, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in REFUSED and value is not None:
            raise UserError(f"config.json: {name}", value, REFUSED[name])
        if name in family.fixed and value is not None and value != family.fixed[name]:
            hint = f"the network here only computes {with_article(family.model_type)} with {family.fixed[name]!r}"
            raise UserError(f"config.json: {name}", value, hint)
    own_class = values.get("auto_map") if isinstance(values.get("auto_map"), dict) else {}
    brings_class = any(str(name).startswith("AutoModel") for name in own_class or {})
    for name in unread_fields(values):
        if brings_class or OTHER_NETWORKS.fullmatch(name):
            hint = f"is no field of {family.model_type} that is known here; take it out if it changes nothing"
            raise UserError(f"config.json: {name}", values[name], f"{hint} that is computed")


def _given(family: Family, values: Mapping[str, Any]) -> Fields:
    """Return the fields that say what the network is; without those that are null and need a value."""
    given = {name: value for name, value in values.items() if name in family.defaults}
    return {
        name: False if value is None and isinstance(family.defaults[name], bool) else value
        for name, value in given.items()
        if value is not None or name in NULLABLE or isinstance(family.defaults[name], bool)
    }


def network_fields(kind: str) -> tuple[str, ...]:
    """Return the fields of a model section ("decoder" or "t5") that say what the network is, and not how it is run."""
    family = next(family for family in FAMILIES.values() if family.switches["kind"] == kind)
    return tuple(from_hf_config({"model_type": family.model_type}))
