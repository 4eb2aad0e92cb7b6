"""The resolved config of a run: every field, its type and its bounds.

`configs/base.py` gives every field a value; a config file (`configs/*.py`) changes what differs, and overrides change
fields by their dotted names. The result is frozen and hashable, and is what a run's `config.json` holds. A field that
was added later has a default here, so that the runs of earlier versions can be read.
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from coi_jax.common.arguments import checked
from coi_jax.common.errors import UserError
from coi_jax.common.schema import Folder, Section, Share
from coi_jax.common.seals import read_sealed
from coi_jax.common.storage import PathLike
from coi_jax.config import loading, pretrained, validation
from coi_jax.config.model import LoraConfig, ModelConfig
from coi_jax.config.overrides import override
from coi_jax.families.registry import expand

MOST_NEW_TOKENS = 2**20  # of an answer; the cache of keys and values has room for all of them


class BytesVocabularyConfig(Section):
    """UTF-8 bytes: needs no file."""

    kind: Literal["bytes"]


class TrainedVocabularyConfig(Section):
    """A SentencePiece model that is trained on the dataset."""

    kind: Literal["trained"]
    size: PositiveInt  # pieces


class SentencePieceVocabularyConfig(Section):
    """A SentencePiece model of one's own."""

    kind: Literal["sentencepiece"]
    file: str  # the .model file


class MistralVocabularyConfig(Section):
    """A tokenizer of Mistral's models, from the files that mistral-common ships."""

    kind: Literal["mistral"]
    version: str  # "v1", "v2", "v3", "v7" or "tekken"


class TokenizerVocabularyConfig(Section):
    """The tokenizer of a published model."""

    kind: Literal["tokenizer"]
    folder: str  # with its files, local or gs://…


VocabularyConfig = Annotated[
    BytesVocabularyConfig
    | TrainedVocabularyConfig
    | SentencePieceVocabularyConfig
    | MistralVocabularyConfig
    | TokenizerVocabularyConfig,
    Field(discriminator="kind"),
]


class ExampleBatchConfig(Section):
    """A step takes a fixed number of examples (the paper's 256), packed into a fixed number of rows."""

    count: Literal["examples"]
    examples: PositiveInt  # examples per step, over all hosts
    rows: PositiveInt | None  # packed rows per step, over all hosts; None: as many as the fullest step needs


class TokenBatchConfig(Section):
    """A step takes a fixed number of full rows."""

    count: Literal["tokens"]
    rows: PositiveInt  # packed rows per step, over all hosts


BatchConfig = Annotated[ExampleBatchConfig | TokenBatchConfig, Field(discriminator="count")]


class ChatConfig(Section):
    """What a conversation holds besides the chain; for the templates chat and mistral."""

    system: str | None  # the system prompt; None: the tokenizer's own, if it has one
    variables: dict[str, bool | int | float | str]  # of a chat template, as enable_thinking=False

    def __hash__(self) -> int:
        return hash((self.system, *sorted(self.variables)))


class DataConfig(Section):
    """The data of a run: its rows, and the batches that they make."""

    folder: Folder  # the dataset folder
    cache_folder: Folder  # where token caches are kept, shared by all runs
    split: Annotated[str, Field(pattern="^[^/]+$")]  # the split that is trained on
    # How instruction and input become the model's prompt; chat and mistral: as the model's own tokenizer lays them out.
    template: Literal["plain", "alpaca", "chat", "mistral"]
    chat: ChatConfig
    mixing: Literal["concatenate", "rates"]  # each row once per epoch, or SeqIO's mixing rates; without ratios
    # The share of each chain length in the examples, as {1: 0.2, 2: 0.3, 3: 0.5}; relative, as SeqIO's rates. None:
    # that of its rows.
    ratios: dict[PositiveInt, PositiveFloat] | None = None
    # Examples that are trained on, the first of an order that follows from the seed; None: all.
    max_examples: PositiveInt | None = None
    # The step from which chains of each length are seen, as {1: 0, 2: 300, 3: 600}; None: all of them from the first.
    curriculum: dict[PositiveInt, NonNegativeInt] | None = None
    batch: BatchConfig
    length: PositiveInt  # positions in a packed row; of the encoder, in a T5
    targets_length: PositiveInt | None  # positions in a T5's decoder row; None for a decoder model
    overlong: Literal["drop", "cut_inputs", "cut_targets"]  # what becomes of an example longer than a row
    max_dropped: Annotated[float, Field(ge=0, le=1)]  # largest share of examples that may be left out as too long

    def __hash__(self) -> int:
        return hash((self.folder, self.split, self.batch, self.length, *(self.ratios or ()), *(self.curriculum or ())))


class OptimizerConfig(Section):
    """The optimizer and its schedule."""

    name: str  # of coi_jax.training.optimizer.OPTIMIZERS
    options: dict[str, float]  # of that optimizer alone, as b1, b2 and epsilon of AdamW
    learning_rate: PositiveFloat  # its peak, after warm-up
    schedule: str  # the decay after warm-up; of coi_jax.training.optimizer.SCHEDULES
    warmup_ratio: Share  # share of all steps
    weight_decay: NonNegativeFloat  # per step, times the learning rate; matrices only
    clip_norm: PositiveFloat | None  # largest norm of the whole gradient; None: not clipped

    def __hash__(self) -> int:
        return hash((self.name, self.learning_rate, *sorted(self.options.items())))


class EpochsConfig(Section):
    """A number of passes over the mixture."""

    unit: Literal["epochs"]
    count: PositiveFloat


class StepsConfig(Section):
    """A number of optimizer steps."""

    unit: Literal["steps"]
    count: PositiveInt


class AllStepsConfig(Section):
    """Every token of an answer has the same loss."""

    kind: Literal["all_steps"]


class LastStepConfig(Section):
    """The last step alone, with its label, has a loss."""

    kind: Literal["last_step"]


class WeightedStepsConfig(Section):
    """The loss of each step has a weight."""

    kind: Literal["weighted_steps"]
    # Of the first step, the second and so on; the last weight is that of all further steps.
    weights: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)]


LossOnConfig = Annotated[AllStepsConfig | LastStepConfig | WeightedStepsConfig, Field(discriminator="kind")]


class ValidationConfig(Section):
    """The loss on held-out chains during training, and the scores of generated answers to some of them."""

    every: PositiveInt  # steps
    split: str = "validation"  # of the dataset; chains of the arm's lengths
    examples: PositiveInt | None = None  # the first of an order that follows from the seed; None: all
    keep_best: bool = True  # also keep the best checkpoint, for `evaluation.checkpoint = "best"`
    generate_every: PositiveInt | None = None  # steps between answers to the split, which are scored; None: none
    generate_examples: PositiveInt = 100  # chains that are answered, the same ones each time
    # What the best checkpoint is chosen by: "loss", or a score of the answers, as "content_exact_match".
    best_by: str = "loss"

    @pydantic.model_validator(mode="after")
    def _scores_are_computed(self) -> "ValidationConfig":
        if self.best_by != "loss" and self.generate_every is None:
            raise ValueError(f"best_by={self.best_by!r} is a score of generated answers; set generate_every too")
        return self


class TrainConfig(Section):
    """The length of training, its loss, logs and checkpoints."""

    length: Annotated[EpochsConfig | StepsConfig, Field(discriminator="unit")]
    loss_on: LossOnConfig = AllStepsConfig(kind="all_steps")  # the steps of a chain whose tokens have a loss
    microbatches: PositiveInt  # a step's rows are taken in this many parts, their gradients summed
    log_every: PositiveInt  # steps
    checkpoint_every: PositiveInt  # steps; the last step is always kept
    checkpoint_minutes: PositiveFloat | None  # a checkpoint also after this long without one; None: only by steps
    # Between preemptions, to expect; the time between checkpoints then follows, from the second on. None: as above.
    preemption_hours: PositiveFloat | None = None
    keep_checkpoints: PositiveInt
    # At a step whose loss, gradient or update is not finite: end the run before anything is saved, or leave it out.
    on_not_finite: Literal["stop", "skip"] = "stop"
    validation: ValidationConfig | None = None  # None: without


class WeightsConfig(Section):
    """The weights that training begins from."""

    folder: Folder | None  # a published folder, local or gs://…, or a run's; None: random weights

    @property
    def required_folder(self) -> str:
        """The folder; raises UserError where there is none."""
        if self.folder is None:
            raise UserError("config.weights.folder", None, "name a published folder, or a run's")
        return self.folder


def _check_axis(size: int) -> int:
    if size == 0 or size < -1:
        raise ValueError("give a positive number, or -1 for the rest of the devices")
    return size


AxisSize = Annotated[int, pydantic.AfterValidator(_check_axis)]


class MeshConfig(Section):
    """The number of devices along each axis; at most one axis may be -1, the rest of the devices."""

    replica: AxisSize  # between slices: data-parallel copies
    fsdp: AxisSize  # parameters and batch are divided
    tensor: AxisSize  # heads, MLP and vocabulary are divided
    sequence: AxisSize  # the positions of a row are divided

    @pydantic.model_validator(mode="after")
    def _one_takes_the_rest(self) -> "MeshConfig":
        free = [axis for axis, size in self if size == -1]
        if len(free) > 1:
            raise ValueError(f"{' and '.join(free)} are -1; only one axis takes the rest of the devices")
        return self

    def sizes(self, devices: int) -> tuple[int, ...]:
        """Return the size of every axis on a number of devices; raise UserError where they do not make as many."""
        axes = dict(self)
        fixed = math.prod(size for size in axes.values() if size != -1)
        if devices % fixed or (-1 not in axes.values() and devices != fixed):
            spelt = " × ".join(f"{axis} {size}" for axis, size in axes.items())
            raise UserError("config.mesh", spelt, f"does not make {devices} devices; change an axis or set one to -1")
        return tuple(devices // fixed if size == -1 else size for size in axes.values())


class GreedyConfig(Section):
    """The most likely token at every step."""

    kind: Literal["greedy"]


class SamplingConfig(Section):
    """A token drawn by its probability (nucleus sampling, Holtzman et al. 2020)."""

    kind: Literal["sample"]
    temperature: PositiveFloat = 1.0
    # Of the most likely tokens, the fewest that have this much probability.
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


class BeamSearchConfig(Section):
    """The most likely of several continuations."""

    kind: Literal["beam"]
    beams: PositiveInt
    length_penalty: FiniteFloat = 1.0  # exponent of the length that divides an answer's log-likelihood
    # End at as many finished answers as beams, though a beam may still lead to a better one.
    early_stopping: bool = False


DecodingConfig = Annotated[GreedyConfig | SamplingConfig | BeamSearchConfig, Field(discriminator="kind")]


class EvaluationConfig(Section):
    """The generation and scoring of answers."""

    tests: tuple[str, ...]  # names of test sets, as coi2_test
    decoding: DecodingConfig
    max_new_tokens: Annotated[int, Field(gt=0, le=MOST_NEW_TOKENS)]
    batch: PositiveInt  # prompts that are answered at the same time; fewer where prompts are long
    bootstrap: PositiveInt  # resamples behind an interval
    examples: PositiveInt | None = None  # of each test set, in a fixed order that all runs share; None: all of them
    checkpoint: Literal["newest", "best"] = "newest"  # best: on the validation split
    shots: PositiveInt = 7  # worked examples that a prompting baseline shows
    # A JSON-lines file of chains that are the worked examples; None: training chains, or the project's own chains
    # where the dataset has none.
    demonstrations: str | None = None


Name = Annotated[str, Field(min_length=1)]


class LoggingConfig(Section):
    """Services that get the metrics of training, besides metrics.jsonl and TensorBoard events."""

    wandb_project: Name | None = None  # in Weights & Biases; None: not logged there
    mlflow_experiment: Annotated[str, Field(min_length=1)] | None = (
        None  # on the server of MLFLOW_TRACKING_URI; None: not logged there
    )
    group: Annotated[str, Field(min_length=1)] | None = (
        None  # of the run; None: the name of the folder around the run folder, which is the sweep's
    )


class RunConfig(Section):
    """All there is to say of a run.

    `load_config` makes it, and names a wrong field in one line; made directly of its fields, it raises pydantic's own
    ValidationError, which lists all of them.
    """

    arm: str  # a name in coi_jax.data.arms
    seed: NonNegativeInt
    data: DataConfig
    vocabulary: VocabularyConfig
    model: ModelConfig
    weights: WeightsConfig
    lora: LoraConfig | None  # adapters on frozen weights; None: all weights are trained
    optimizer: OptimizerConfig
    train: TrainConfig
    mesh: MeshConfig
    evaluation: EvaluationConfig
    logging: LoggingConfig = LoggingConfig()

    @pydantic.model_validator(mode="after")
    def _rows_fit_model(self) -> "RunConfig":
        if (self.model.kind == "t5") != (self.data.targets_length is not None):
            raise ValueError("data.targets_length is the decoder row of a T5, and None for a decoder model")
        return self

    @pydantic.model_validator(mode="after")
    def _rows_fit_rotary_positions(self) -> "RunConfig":
        longest = self.model.rope.longest_sequence if self.model.kind == "decoder" else None
        if longest is not None and self.data.length > longest:
            raise ValueError(
                f"data.length = {self.data.length} is more than the {longest} positions of the model, which stretches "
                f"positions dynamically beyond them; that is not computed here: give at most {longest}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _template_fits_vocabulary(self) -> "RunConfig":
        kinds = {"chat": "tokenizer", "mistral": "mistral"}
        kind = kinds.get(self.data.template, self.vocabulary.kind)
        if self.vocabulary.kind != kind:
            raise ValueError(f'data.template = "{self.data.template}" is what vocabulary.kind = "{kind}" lays out')
        return self

    @pydantic.model_validator(mode="after")
    def _chat_fits_template(self) -> "RunConfig":
        if self.data.chat.system is not None and self.data.template not in ("chat", "mistral"):
            raise ValueError(f'data.chat.system is not shown by data.template = "{self.data.template}"')
        if self.data.chat.variables and self.data.template != "chat":
            raise ValueError(f'data.chat.variables are not read by data.template = "{self.data.template}"')
        return self


@checked
def load_config(
    path: PathLike, overrides: Mapping[str, Any], *, kept: PathLike | None = None, replaces_model: bool = False
) -> RunConfig:
    """Load the config of a file, with overrides, and with what the folder of its weights says.

    Args:
      path: a Python file with `get_config()`, FILE:ARGUMENT where that takes an argument, or a run's `config.json`.
      overrides: values by dotted names (`{"train.log_every": 100}`); text is read as what its field holds.
      kept: a run's own copy of the small files of a published folder, which is read in place of that folder.
      replaces_model: the folder's network, vocabulary and template replace those of a file that names weights itself.

    Raises:
      UserError: the file cannot be read, a field is missing, unknown (the nearest name is given) or out of bounds, or
        the folder of the weights contradicts what is set.
    """
    values, changes = loading.read(path), dict(overrides)
    if "endpoint" in values and "arm" not in values:
        raise UserError("config", path, "is the config of a build or of a judge, not of a run")
    weights = None if _is_resolved(path, changes) else pretrained.find(values, changes, kept)
    replaces = replaces_model or not pretrained.is_named_by_file(values)
    if weights is not None:
        weights.prepare(values, changes, replaces=replaces)
    model = values.get("model")  # whatever a file holds
    if isinstance(model, dict) and ("preset" in model or "model.preset" in changes):
        values["model"] = expand(changes.pop("model.preset", model.get("preset")), model)
    override(values, changes, RunConfig)
    if weights is not None:
        weights.complete(values, overrides, replaces=replaces)
    return validate(values)


def _is_resolved(path: PathLike, overrides: Mapping[str, Any]) -> bool:
    """Return whether a file is the config.json of a run, in which nothing is left to the folder of its weights."""
    return str(path).endswith(".json") and "weights.folder" not in overrides


def read_run_config(path: PathLike, field: str) -> RunConfig:
    """Read the `config.json` of a run.

    Args:
      path: of the file.
      field: what the user named it for, as "workdir".

    Raises:
      UserError: there is no such file, or a field is missing or wrong, as in a run of another version of the project.
    """
    try:
        values = read_sealed(path, field)
    except UserError as error:  # nobody writes the config of a run by hand
        hint = re.sub("write it again|restore it$", "restore the file, or train into another --workdir", error.hint)
        raise UserError(error.field, error.value, hint) from None
    try:
        return validate(values)
    except UserError as error:
        hint = f"{error}; if another version of the project wrote this run, go on with that version, or train it again"
        raise UserError(field, path, hint) from None


def validate(values: Mapping[str, Any]) -> RunConfig:
    """Return the config that a nested mapping spells; raise UserError for the first field that is wrong."""
    return validation.validate(RunConfig, values)
