"""Stage 2: every task gets a short instruction, and a category where its source has none."""

import dataclasses
from collections.abc import Callable

import apache_beam as beam

from coi_jax.common import files
from coi_jax.llm import Answered
from data_pipeline.build import rules
from data_pipeline.build.asking.ask_transform import Ask, Result, asked
from data_pipeline.build.asking.questions import Categorise, Category, Instruction, Question, Summarise
from data_pipeline.build.drafts import Seed
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Flow, Row

AskOf = Callable[[Callable[..., Question], Callable[..., list[Result]]], Ask]  # an Ask of somebody who is asked


def categorise(rows: Flow, ask: AskOf) -> dict[str, Flow]:
    """The flows of the stage for tasks without a category; the others pass."""
    known = rows | "with a category" >> beam.Filter(lambda row: row["category"] is not None)
    unknown = rows | "without one" >> beam.Filter(lambda row: row["category"] is None)
    found = asked(unknown, ask(_category_question, _with_category))
    return found | {OUT: (known, found[OUT]) | "all tasks" >> beam.Flatten()}


def _category_question(row: Row) -> Question:
    instance = row["instances"][0]
    return Categorise(row["definition"], instance["input"], instance["output"])


def _with_category(row: Row, answer: Answered[Category]) -> list[Result]:
    return [(OUT, row | {"category": answer.value.category})]


def named(rows: Flow) -> Flow:
    """Tasks as a forecast takes them, which asks nothing: their definition stands for an instruction, and those that
    have no category are spread over all.
    """
    return rows | "stand-ins" >> beam.Map(_named)


def _named(row: Row) -> Row:
    categories = list(rules.load().categories)
    drawn = categories[int(files.digest(row["id"])[:8], 16) % len(categories)]
    return row | {"instruction": row["definition"], "category": row["category"] or drawn}


def summarise(rows: Flow, ask: AskOf) -> dict[str, Flow]:
    """The flows of the stage."""
    return asked(rows, ask(_summary_question, _with_instruction))


def _summary_question(row: Row) -> Question:
    return Summarise(row["definition"])


def _with_instruction(row: Row, answer: Answered[Instruction]) -> list[Result]:
    instruction = answer.value.instruction
    if " and then " in instruction:
        return [(REJECTED, {"reason": "its instruction holds the words that join instructions", "row": row})]
    return [(OUT, dataclasses.replace(Seed.from_row(row), instruction=instruction).row())]
