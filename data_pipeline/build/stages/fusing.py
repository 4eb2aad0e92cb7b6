"""LLM stage: fuse the instructions of a chain into one, for the variant `fused`."""

from dataclasses import dataclass
from typing import Any

from coi_jax.llm import Answered
from data_pipeline.build.asking.ask_transform import Result
from data_pipeline.build.asking.questions import Instruction, Question
from data_pipeline.build.drafts import Draft
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Row

STEP_WORDS = (" and then ", "step 1", "first,", "finally")  # in a fused instruction they would still name its steps
NAMES_STEPS = "a fused instruction that still tells its steps"


@dataclass(frozen=True)
class Fuse(Question):
    """Ask for one instruction that asks for all steps and names none of them."""

    prompt, form, reply_tokens = "fuse", Instruction, 35
    instructions: tuple[str, ...]

    def texts(self) -> dict[str, str]:
        """Return the instructions one below the other."""
        return {"instructions": "\n".join(f"{k}. {text}" for k, text in enumerate(self.instructions, 1))}


def has_several_steps(row: Row, _: Any) -> bool:
    """Return whether a chain has more than one step."""
    return len(row["steps"]) > 1


def question(row: Row) -> Question:
    """Return the question about a chain."""
    return Fuse(tuple(step["instruction"] for step in row["steps"]))


def take(row: Row, answer: Answered[Instruction], _: Any) -> list[Result]:
    """Return the chain's id with the fused instruction; reject one that names the steps.

    Args:
      row: the chain.
      answer: to the question about it.
      _: nothing of the config is needed.
    """
    instruction = answer.value.instruction
    if any(word in instruction.casefold() for word in STEP_WORDS):
        return [(REJECTED, {"reason": NAMES_STEPS, "row": row, "raw": [instruction]})]
    return [(OUT, {"id": Draft.from_row(row).id, "instruction": instruction})]
