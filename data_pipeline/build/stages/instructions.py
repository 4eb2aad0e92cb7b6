"""LLM stage: shorten the definition of every task to an instruction (paper, section 3: 62 words become 14)."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from coi_jax.llm import Answered
from data_pipeline.build.asking.ask_transform import Result
from data_pipeline.build.asking.questions import Instruction, Question
from data_pipeline.build.drafts import Seed
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Row
from data_pipeline.procedural import catalogue

HOLDS_JOINER = "its instruction holds the words that join instructions"


@dataclass(frozen=True)
class Summarize(Question):
    """Ask for a short instruction in place of a task's definition."""

    prompt, form, reply_tokens = "summarize", Instruction, 25
    definition: str

    def computed_reply(self) -> Instruction | None:
        """Return the phrasing of the operation that the definition describes."""
        for operation in catalogue.OPERATIONS:
            if operation.phrasings[0] in self.definition:
                return Instruction(instruction=operation.phrasings[0])
        return None


def question(row: Row) -> Question:
    """Return the question about a task."""
    return Summarize(row["definition"])


def take(row: Row, answer: Answered[Instruction], _: Any) -> list[Result]:
    """Return the task with its instruction; reject an instruction that would read as two.

    Args:
      row: the task.
      answer: to the question about it.
      _: nothing of the config is needed.
    """
    instruction = answer.value.instruction
    if " and then " in instruction:
        return [(REJECTED, {"reason": HOLDS_JOINER, "row": row})]
    return [(OUT, dataclasses.replace(Seed.from_row(row), instruction=instruction).row())]
