"""The resolved config of a run: every field, its type and its bounds.

A config file (`configs/*.py`) is an ml_collections file whose `get_config()` lists every field; overrides change fields
by their dotted names. What comes out is frozen and hashable, and is what `config.json` holds.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from coi_jax.common import files
from coi_jax.common.schema import Section, Share
from coi_jax.config import loading
from coi_jax.config.model import LoraConfig, ModelConfig, model_section
from coi_jax.families.registry import expand


class VocabularyConfig(Section):
    """Which vocabulary turns text into ids."""

    kind: Literal["bytes", "sentencepiece", "trained", "mistral", "tokenizer"]
    # sentencepiece: the .model file; mistral: the tokenizer's version, as "v1"; tokenizer: a model's folder; else ""
    file: str
    size: NonNegativeInt  # trained: the number of pieces; else 0

    @pydantic.model_validator(mode="after")
    def _kind_has_its_field(self) -> "VocabularyConfig":
        if (self.kind in ("sentencepiece", "mistral", "tokenizer")) != bool(self.file):
            raise ValueError('file is what kind "sentencepiece", "mistral" and "tokenizer" need, and "" for the others')
        if (self.kind == "trained") != bool(self.size):
            raise ValueError('size is what kind "trained" needs, and 0 for the others')
        return self


class DataConfig(Section):
    """Which rows make a step's batch, and how."""

    folder: str  # the dataset folder
    cache_folder: str  # where token caches are kept, shared by all runs
    split: str  # the split trained on
    # How instruction and input become the model's prompt; chat and mistral: as the model's own tokenizer lays them out.
    template: Literal["plain", "alpaca", "chat", "mistral"]
    mixing: Literal["concatenate", "rates"]  # each row once an epoch, or SeqIO's mixing rates
    count: Literal["examples", "tokens"]  # a step takes exactly `examples` rows of data, or is `rows` full rows
    examples: NonNegativeInt  # examples a step, over all hosts (count = "examples")
    rows: (
        NonNegativeInt  # packed rows a step, over all hosts; with "examples" 0 means as many as the fullest step needs
    )
    length: PositiveInt  # positions in a packed row; of the encoder, in a T5
    targets_length: NonNegativeInt  # positions in a T5's decoder row; a decoder model has 0
    overlong: Literal["drop", "cut_inputs", "cut_targets"]  # what becomes of an example longer than a row

    @pydantic.model_validator(mode="after")
    def _counts_something(self) -> "DataConfig":
        if self.count == "examples" and not self.examples:
            raise ValueError('examples must be at least 1 where count is "examples"')
        if self.count == "tokens" and not self.rows:
            raise ValueError('rows must be at least 1 where count is "tokens"')
        return self


class OptimizerConfig(Section):
    """The optimizer and its schedule."""

    name: Literal["adamw", "adafactor"]
    learning_rate: PositiveFloat  # its peak, after warm-up
    schedule: Literal["linear", "cosine", "constant"]  # the decay after warm-up, down to 0
    warmup_ratio: Share  # share of all steps
    weight_decay: NonNegativeFloat
    clip_norm: NonNegativeFloat  # of the whole gradient; 0 clips nothing
    b1: Share  # AdamW only
    b2: Share  # AdamW only
    epsilon: PositiveFloat  # AdamW only


class TrainConfig(Section):
    """How long to train, and what to write down on the way."""

    epochs: NonNegativeFloat  # passes over the mixture; 0 where `steps` says how long
    steps: NonNegativeInt  # optimizer steps; 0 where `epochs` says how long
    microbatches: PositiveInt  # a step's rows are taken in this many parts, their gradients summed
    log_every: PositiveInt  # steps
    checkpoint_every: PositiveInt  # steps; the last step is always kept
    keep_checkpoints: PositiveInt

    @pydantic.model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if bool(self.epochs) == bool(self.steps):
            raise ValueError("give either epochs or steps, and 0 for the other")
        return self


class WeightsConfig(Section):
    """What training begins from."""

    folder: str  # a published folder, local or gs://…, or a run's; "": random weights


class MeshConfig(Section):
    """How many devices stand along each axis; at most one axis may be -1, the rest of the devices."""

    replica: int  # between slices: data-parallel copies
    fsdp: int  # parameters and batch are divided
    tensor: int  # heads, MLP and vocabulary are divided
    sequence: int  # the positions of a row are divided


class EvaluationConfig(Section):
    """How answers are generated and scored."""

    tests: tuple[str, ...]  # names of test sets, as coi2_test
    decoding: Literal["greedy", "sample", "beam"]
    temperature: PositiveFloat  # sample only
    top_p: Annotated[float, Field(gt=0, le=1)]  # sample only
    beams: PositiveInt  # beam only
    max_new_tokens: PositiveInt
    batch: PositiveInt  # prompts generated together
    bootstrap: PositiveInt  # resamples behind an interval


class RunConfig(Section):
    """All there is to say of a run."""

    arm: str  # a name in coi_jax.data.arms
    seed: NonNegativeInt
    data: DataConfig
    vocabulary: VocabularyConfig
    model: ModelConfig
    weights: WeightsConfig
    lora: LoraConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    mesh: MeshConfig
    evaluation: EvaluationConfig

    @pydantic.model_validator(mode="after")
    def _rows_fit_model(self) -> "RunConfig":
        if (self.model.kind == "t5") != (self.data.targets_length > 0):
            raise ValueError("data.targets_length is the decoder row of a T5, and 0 for a decoder model")
        return self

    @pydantic.model_validator(mode="after")
    def _template_fits_vocabulary(self) -> "RunConfig":
        kinds = {"chat": "tokenizer", "mistral": "mistral"}
        kind = kinds.get(self.data.template, self.vocabulary.kind)
        if self.vocabulary.kind != kind:
            raise ValueError(f'data.template = "{self.data.template}" is what vocabulary.kind = "{kind}" lays out')
        return self


def load_config(path: files.PathLike, overrides: Mapping[str, Any]) -> RunConfig:
    """The config of a file, with dotted overrides (`{"train.steps": 100}`); a run's `config.json` is one too.

    Raises:
      UserError: the file cannot be read, or a field is missing, unknown (the nearest name is given) or out of bounds.
    """
    config = loading.read(path)
    overrides = dict(overrides)
    if "preset" in config["model"]:
        preset = overrides.pop("model.preset", config["model"]["preset"])
        config["model"] = expand(preset, config["model"])
    loading.override(config, overrides)
    return validate(config)


def validate(values: Mapping[str, Any]) -> RunConfig:
    """The config that a nested mapping spells; raises UserError for the first field that is wrong."""
    return loading.validate(RunConfig, values, unions={"model": model_section(values.get("model") or {})})
