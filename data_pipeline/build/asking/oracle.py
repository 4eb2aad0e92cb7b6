"""The procedural "language model": it answers questions about procedural operations by computing.

It is the default where no endpoint is at hand, and the truth that a real model's answers can be held against.
"""

from concurrent.futures import Future
from typing import Any

from coi_jax.llm import Answered, Outcome, Rejected
from data_pipeline.build.asking.questions import (
    Answer,
    Check,
    Composable,
    Fuse,
    Instruction,
    Judge,
    Judgement,
    Output,
    Question,
    ReplyForm,
    Summarise,
)
from data_pipeline.procedural import catalogue
from data_pipeline.procedural.verification import execute

NO_ANSWER = "nothing is computed for a question of this kind"


class Oracle:
    """An `Answerer` that computes."""

    waiting = 1

    def submit(self, question: Question) -> "Future[Outcome[Any]]":
        """See `Answerer`."""
        future: Future[Outcome[Any]] = Future()
        found = answer(question)
        future.set_result(Rejected(NO_ANSWER, ()) if found is None else Answered(found, ()))
        return future

    def rest(self) -> None:
        """See `Answerer`."""


def answer(question: Question) -> ReplyForm | None:
    """The right reply; None where nothing computes one, as for a fused wording."""
    if isinstance(question, Summarise):
        return _short(question.definition)
    if isinstance(question, Check):
        return _composable(question)
    if isinstance(question, Answer):
        output = execute(question.instruction, question.input)
        return None if output is None else Output(output=output)
    if isinstance(question, Judge):
        return _judgement(question)
    assert isinstance(question, Fuse) or question.prompt == "categorise"
    return None


def _short(definition: str) -> Instruction | None:
    for operation in catalogue.OPERATIONS:
        if operation.phrasings[0] in definition:
            return Instruction(instruction=operation.phrasings[0])
    return None


def _composable(question: Check) -> Composable:
    result = execute(question.second, question.output)
    if result is None:
        return Composable(reason="The second cannot be computed on what the first gave.", composable=False)
    if result in (question.input, question.output):
        return Composable(reason="The second gives back a text that was there before.", composable=False)
    return Composable(reason="The second can be computed on what the first gave.", composable=True)


def is_composable(first_input: str, output: str, second: str) -> bool:
    """Whether an instruction can follow, by computing it."""
    return _composable(Check("", first_input, output, second)).composable


def right_steps(text: str, steps: list[tuple[str, str]]) -> list[bool]:
    """Whether each step's output is what its instruction gives for the output before it."""
    given = [text, *(output for _, output in steps[:-1])]
    return [execute(instruction, before) == output for before, (instruction, output) in zip(given, steps, strict=True)]


def _judgement(question: Judge) -> Judgement:
    right = right_steps(question.input, list(question.steps))
    if all(right):
        return Judgement(reason="Every output is what is computed.", valid=True, score=5, wrong_step=None)
    first = right.index(False) + 1
    reason = f"Step {first} gives something else."
    return Judgement(reason=reason, valid=False, score=2 if right.count(False) == 1 else 1, wrong_step=first)
