"""The table of LLM stages, in the order in which a build runs them. An entry is all that the build needs to know.

The pipeline, the forecast, the Batch API, the manifest and the report read this table. An entry refers to a module of
`stages/` that holds the question with its form of reply and its computed reply, and to `asking/prompts/NAME.toml`.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import apache_beam as beam

from coi_jax.llm.settings import EndpointConfig
from data_pipeline.build.asking.ask_transform import Answerer, AskFn, Result, ask_rows
from data_pipeline.build.asking.questions import Question
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.engine.stage_runner import OUT, Flow, Row
from data_pipeline.build.stages import answers, categories, checks, fusing, instructions, opinions, working


class Position(Enum):
    """The place of an LLM stage in a build, which determines its rows."""

    TASKS = "tasks, after the sources are read"
    CANDIDATES = "chains with one step more, once for each length"
    CHAINS = "whole chains of all lengths, before the selection"
    SELECTED = "selected chains; its output does not replace them"


def _always(_: BuildConfig) -> bool:
    return True


def _main_endpoint(config: BuildConfig) -> EndpointConfig:
    return config.endpoint


def _no_setting(_: BuildConfig) -> None:
    return None


def _all_pass(_: int) -> float:
    return 1.0


@dataclass(frozen=True)
class LlmStage:
    """A stage that asks a language model about each of its rows.

    Attributes:
      name: of the stage; those of candidates have the length behind it, as `checks-2`.
      position: in the build.
      question_class: names the prompt and the form of the reply, and computes the reply for procedural tasks.
      question: of a row; with `needs_definitions` of a row and the definition of every task.
      take: what a row, the answer and the setting become: tagged rows.
      passed: what the report calls the rows that it lets through.
      enabled: whether a build has the stage.
      endpoint: which endpoint is asked.
      setting: what `take` needs of the config; a change of it makes the stage anew.
      applies: the rows that are asked about, by row and setting, if not all; the others pass on, except of selected
        chains.
      needs_definitions: whether `question` takes the definitions.
      expected_share: of the rows of a length those that a forecast expects to pass.
    """

    name: str
    position: Position
    question_class: type[Question]
    question: Callable[..., Question]
    take: Callable[[Row, Any, Any], list[Result]]
    passed: str
    enabled: Callable[[BuildConfig], bool] = _always
    endpoint: Callable[[BuildConfig], EndpointConfig] = _main_endpoint
    setting: Callable[[BuildConfig], Any] = _no_setting
    applies: Callable[[Row, Any], bool] | None = None
    needs_definitions: bool = False
    expected_share: Callable[[int], float] = _all_pass


LLM_STAGES = (
    LlmStage(
        name="categories",
        position=Position.TASKS,
        question_class=categories.Categorize,
        question=categories.question,
        take=categories.take,
        passed="with a category",
        applies=categories.has_no_category,
    ),
    LlmStage(
        name="instructions",
        position=Position.TASKS,
        question_class=instructions.Summarize,
        question=instructions.question,
        take=instructions.take,
        passed="with a short instruction",
    ),
    LlmStage(
        name="checks",
        position=Position.CANDIDATES,
        question_class=checks.Check,
        question=checks.question,
        take=checks.take,
        passed="the last step can follow",
        expected_share=checks.expected_share,
    ),
    LlmStage(
        name="answers",
        position=Position.CANDIDATES,
        question_class=answers.Answer,
        question=answers.question,
        take=answers.take,
        passed="its output is sound",
        setting=lambda config: config.seeds.longest_words,
        needs_definitions=True,
    ),
    LlmStage(
        name="opinions",
        position=Position.CHAINS,
        question_class=opinions.Judge,
        question=opinions.question,
        take=opinions.take,
        passed="a second opinion is good",
        enabled=lambda config: config.opinion.enabled,
        endpoint=lambda config: config.opinion.endpoint,
        setting=lambda config: config.opinion.least_score,
    ),
    LlmStage(
        name="fused",
        position=Position.SELECTED,
        question_class=fusing.Fuse,
        question=fusing.question,
        take=fusing.take,
        passed="with a fused instruction",
        enabled=lambda config: "fused" in config.variants,
        applies=fusing.has_several_steps,
    ),
    *(
        LlmStage(
            name=f"{working.STAGE}{strategy}",
            position=Position.SELECTED,
            question_class=kind,
            question=functools.partial(working.question, strategy),
            take=functools.partial(working.take, strategy),
            passed=f"worked {strategy.replace('_', ' ')}",
            enabled=working.is_enabled,
            setting=working.setting,
            applies=functools.partial(working.is_asked, strategy),
        )
        for strategy, kind in working.STRATEGIES.items()
    ),
)


def at(position: Position, config: BuildConfig) -> list[LlmStage]:
    """Return the stages of a build at a position, in order."""
    return [stage for stage in LLM_STAGES if stage.position is position and stage.enabled(config)]


def find(stage_name: str) -> LlmStage | None:
    """Return the entry of a stage by the name that it has in a build, as `checks-2`; None for other stages."""
    name = re.sub(r"-\d+$", "", stage_name)
    return next((stage for stage in LLM_STAGES if stage.name == name), None)


def endpoint_of(stage_name: str, config: BuildConfig) -> EndpointConfig:
    """Return the endpoint that a stage asks, by the name that it has in a build."""
    stage = find(stage_name)
    return stage.endpoint(config) if stage else config.endpoint


def prompts() -> list[str]:
    """Return the names of the prompts of all stages."""
    return [stage.question_class.prompt for stage in LLM_STAGES]


def ask(
    stage: LlmStage, rows: Flow, answerer: tuple[Any, Callable[[], Answerer]], setting: Any, *sides: Any
) -> dict[str, Flow]:
    """Return the flows of an LLM stage.

    Args:
      stage: its entry.
      rows: its input.
      answerer: the key of who is asked, and a function that makes it.
      setting: the stage's part of the config.
      sides: the side input of definitions, where the stage needs it.
    """
    fn = AskFn(*answerer, stage.question, functools.partial(_take, stage.take, setting))
    if stage.applies is None:
        return ask_rows(rows, fn, *sides)
    found = ask_rows(rows | "to ask" >> beam.Filter(stage.applies, setting), fn, *sides)
    if stage.position is Position.SELECTED:
        return found
    others = rows | "to pass on" >> beam.Filter(_does_not_apply, stage.applies, setting)
    return found | {OUT: (others, found[OUT]) | "all rows" >> beam.Flatten()}


def _take(take: Callable[[Row, Any, Any], list[Result]], setting: Any, row: Row, answer: Any) -> list[Result]:
    return take(row, answer, setting)


def _does_not_apply(row: Row, applies: Callable[[Row, Any], bool], setting: Any) -> bool:
    return not applies(row, setting)
