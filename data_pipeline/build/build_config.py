"""Every field of a build's config, with its type and bounds.

A config file (`configs/build/*.py`) lists every field; `--config.field=value` changes one.
"""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, NonNegativeInt, PositiveInt

from coi_jax.common.schema import Section
from coi_jax.llm.settings import EndpointConfig

EXAMPLES = ("rows", "alpaca")  # the kinds of sources whose rows are examples in one of several layouts
LONGEST = 5  # steps of a chain: what the paper joins
Probability = Annotated[float, Field(ge=0, le=1)]


class SourceConfig(Section):
    """A source of single instructions."""

    # super_ni: a folder of task files; rows: a file or folder of rows, or hf://datasets/… (alpaca is another name of
    # it); dataset: a dataset folder of this project, its chains of one step; procedural: the operations of
    # `data_pipeline.procedural`, by families or names.
    kind: Literal["super_ni", "rows", "alpaca", "dataset", "procedural"]
    path: str
    split: str  # of a dataset folder; "" for the others
    # The names of the columns of instruction, input and output, of rows; {} where their layout is recognized.
    columns: dict[str, str]

    @pydantic.model_validator(mode="after")
    def _only_a_dataset_has_splits(self) -> "SourceConfig":
        if (self.kind == "dataset") != bool(self.split):
            raise ValueError('split is what kind "dataset" needs, and "" for the others')
        return self

    @pydantic.model_validator(mode="after")
    def _columns_are_of_rows(self) -> "SourceConfig":
        if self.columns and self.kind not in EXAMPLES:
            raise ValueError(f'columns are what kind "rows" has, and {{}} for {self.kind}')
        if self.columns and not {"instruction", "output"} <= self.columns.keys() <= {"instruction", "input", "output"}:
            raise ValueError("columns must name those of instruction and output (and of input, where there is one)")
        if len(set(self.columns.values())) < len(self.columns):
            raise ValueError("columns name one twice; each text needs a column of its own")
        return self


class SeedsConfig(Section):
    """The selection of single instructions."""

    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    languages: tuple[str, ...]  # of input, output and instruction; () takes all
    instances: PositiveInt  # of a task (paper, section 3: 10)
    longest_words: PositiveInt  # of an instance's input or output
    test_share: Probability  # of the tasks


class PairsConfig(Section):
    """The selection of pairs of tasks that are tried."""

    tasks_per_categories: PositiveInt  # pairs of tasks tried for a pair of categories
    instances_per_tasks: PositiveInt  # instances tried for a pair of tasks


class JoinsConfig(Section):
    """The growth of chains beyond two steps."""

    lengths: tuple[Annotated[int, Field(ge=3, le=LONGEST)], ...]  # that are made; () stops at pairs
    per_categories: PositiveInt  # chains tried for a sequence of categories, and
    most: PositiveInt  # of each length and split

    @pydantic.field_validator("lengths")
    @classmethod
    def _without_a_gap(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if lengths != tuple(range(3, 3 + len(lengths))):
            raise ValueError("lengths must be 3, 4, … without a gap: each is joined from the one before")
        return lengths


class OpinionConfig(Section):
    """A second model's opinion on whole chains."""

    enabled: bool
    endpoint: EndpointConfig
    least_score: Annotated[int, Field(ge=1, le=5)]  # below which a chain is left out


class SelectionConfig(Section):
    """The selection of chains that are written."""

    per_categories: PositiveInt  # of a sequence of categories (paper, section 3: 3)
    singles: bool  # single instructions too, as chains of one step


class ErasureConfig(Section):
    """The answers that a teacher works with strategies, for the variants `erased` and `kept`."""

    # by_category: one strategy for each chain, as strategies.toml says; all: every strategy is tried on every chain.
    strategies: Literal["by_category", "all"]
    # Of an output against its reference, 0 to 1, from which it counts as right; None: it must be the same text.
    least_rouge_l: Probability | None


class BuildConfig(Section):
    """All fields of a build."""

    llm: Literal["endpoint", "procedural"]  # procedural: outputs are computed; its sources must be too
    seed: NonNegativeInt
    seeds: SeedsConfig
    pairs: PairsConfig
    joins: JoinsConfig
    endpoint: EndpointConfig
    opinion: OpinionConfig
    selection: SelectionConfig
    variants: tuple[Literal["fused", "irrelevant", "shuffled", "final", "erased", "kept"], ...]
    erasure: ErasureConfig
    store: str  # of replies, shared by all builds: a .sqlite file, or a folder on any path (gs://…)

    @pydantic.model_validator(mode="after")
    def _oracle_knows_only_operations(self) -> "BuildConfig":
        if self.llm == "procedural" and any(source.kind != "procedural" for source in self.seeds.sources):
            hint = 'set llm to "endpoint", or give sources of that kind'
            raise ValueError(f'llm = "procedural" computes outputs of procedural operations alone: {hint}')
        return self
