"""The description of one published model family, as plain data: its networks, and how Hugging Face spells them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]


@dataclass(frozen=True)
class TensorNames:
    """The names that `transformers` gives the tensors of some networks.

    Attributes:
      switches: fields of a model section; the names are those of every network that has these values.
      keys: a checkpoint's key by the path of the parameter; {} stands for the number of the layer. They may name more
        parameters than a network has (a tied head, an absent bias).
      embedding_copies: further keys under which a checkpoint may hold the embedding.
    """

    switches: Fields
    keys: dict[str, str]
    embedding_copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """One published family: what its networks compute, their sizes, and how Hugging Face spells config and tensors.

    "Model section" is the section `model` of a run's config; "config.json" is the file published with a checkpoint.

    Attributes:
      model_type: `model_type` in config.json.
      architecture: the class of `transformers`, `architectures` in config.json.
      switches: the fields of the model section that hold for the whole family, unless config.json says otherwise.
      variants: presets without sizes, for a network of one's own sizes, by name.
      models: presets with sizes, one for each published model, by name.
      defaults: the fields of config.json that say what the network is, with the defaults of transformers' class.
      fixed: the fields of config.json that must have one value, where they are given.
      read: returns fields of the model section, from a config.json in which no field of `defaults` is missing.
      write: returns the fields of a config.json from a model section.
      tensors: the names of the tensors of the family's networks.
      nested_type: `model_type` of a config.json that holds this family's under `text_config`; "" where there is none.
      key_prefixes: prefixes of keys that only some checkpoints have, and what `tensors` has in their place.
      unused_keys: a regular expression; the whole key of a tensor that the network has no use for.
      fused_keys: keys of tensors that hold the rows of several, one after another, and the keys of those; {} stands for
        the number of the layer.
      tokenizer_file: the name of a SentencePiece model in a checkpoint's folder.
    """

    model_type: str
    architecture: str
    switches: Fields
    variants: dict[str, Fields]
    models: dict[str, Fields]
    defaults: Fields
    fixed: Fields
    read: Callable[[Fields], Fields]
    write: Callable[[Fields], Fields]
    tensors: tuple[TensorNames, ...]
    nested_type: str = ""
    key_prefixes: tuple[tuple[str, str], ...] = ()
    unused_keys: str = ""
    fused_keys: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tokenizer_file: str = "tokenizer.model"
