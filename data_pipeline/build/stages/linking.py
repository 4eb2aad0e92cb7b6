"""Stages 4 and 5: whether a candidate's last step can follow, and what it gives. Of chains of any length."""

from collections.abc import Callable
from typing import Any

import apache_beam as beam

from coi_jax.llm import Answered
from data_pipeline.build.asking.ask_transform import Result, asked
from data_pipeline.build.asking.questions import Answer, Check, Composable, Output, Question
from data_pipeline.build.drafts import Draft, Verdict
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Flow, Row
from data_pipeline.build.stages.wording import AskOf

NOT_COMPOSABLE = "not composable"
IDLE = "a step gives back a text that the chain had before"
TOO_LONG = "an output longer than longest_words"


def check(rows: Flow, ask: AskOf) -> dict[str, Flow]:
    """The flows of the stage: candidates whose last step can follow, each with the verdict and its reason."""
    return asked(rows, ask(check_question, with_verdict))


def check_question(row: Row) -> Question:
    """Whether the last step can be carried out on what the one before it gave."""
    draft = Draft.from_row(row)
    before = draft.length - 1
    return Check(draft.steps[-2].instruction, draft.given(before), draft.given(before + 1), draft.steps[-1].instruction)


def with_verdict(row: Row, answer: Answered[Composable]) -> list[Result]:
    """The candidate with its verdict; a negative one takes it out."""
    draft, said = Draft.from_row(row), answer.value
    verdict = Verdict(draft.length, said.composable, said.reason)
    judged = draft.judged(verdict, answer.keys).row()
    if said.composable:
        return [(OUT, judged)]
    return [(REJECTED, {"reason": NOT_COMPOSABLE, "row": judged})]


def answer(rows: Flow, ask: AskOf, definitions: Any, longest_words: int) -> dict[str, Flow]:
    """The flows of the stage: chains whose last step has its output.

    Args:
      rows: candidates.
      ask: who is asked.
      definitions: a side input: the definition of every task.
      longest_words: of an output.
    """
    return asked(rows, ask(answer_question, _with_output(longest_words)), definitions)


def answer_question(row: Row, definitions: dict[str, str]) -> Question:
    """What the last step gives for exactly what the one before it gave."""
    draft = Draft.from_row(row)
    last = draft.steps[-1]
    return Answer(definitions[last.task or ""], last.instruction, draft.given(draft.length))


def _with_output(longest_words: int) -> Callable[..., list[Result]]:
    def take(row: Row, answer: Answered[Output], _: dict[str, str]) -> list[Result]:
        draft = Draft.from_row(row)
        output = answer.value.output
        done = draft.answered(output, answer.keys).row()
        if draft.had(output):
            return [(REJECTED, {"reason": IDLE, "row": done})]
        if len(output.split()) > longest_words:
            return [(REJECTED, {"reason": TOO_LONG, "row": done})]
        return [(OUT, done)]

    return take


def definitions_of(tasks: Flow) -> Any:
    """The side input of `answer`: definitions by task."""
    return beam.pvalue.AsDict(tasks | "definitions" >> beam.Map(lambda row: (row["id"], row["definition"])))
