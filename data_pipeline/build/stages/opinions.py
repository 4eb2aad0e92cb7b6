"""LLM stage: ask a second model to judge whole chains; those below a score are left out.

In the paper 25% of pairs and 41% of triplets were invalid when people looked (section 3).
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from coi_jax.llm import Answered
from data_pipeline.build.asking.ask_transform import Result
from data_pipeline.build.asking.questions import Question, ReplyForm, Text
from data_pipeline.build.drafts import Draft, Opinion
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Row
from data_pipeline.procedural.verification import follow

POOR = "below least_score in a second opinion"


class Judgement(ReplyForm):
    """An opinion of a whole chain."""

    reason: Text
    valid: bool
    score: Literal[1, 2, 3, 4, 5]
    wrong_step: int | None


@dataclass(frozen=True)
class Judge(Question):
    """Ask for a second opinion on a chain, given as pairs of instruction and output."""

    prompt, form, reply_tokens = "judge", Judgement, 60
    input: str
    steps: tuple[tuple[str, str], ...]

    def texts(self) -> dict[str, str]:
        """Return the input, and the steps one below the other."""
        steps = (f"{k}. {instruction}\nOutput {k}: {output}" for k, (instruction, output) in enumerate(self.steps, 1))
        return {"input": self.input, "steps": "\n".join(steps)}

    def computed_reply(self) -> Judgement:
        """Return the judgement that computing every step gives."""
        instructions, outputs = zip(*self.steps, strict=True)
        right = follow(instructions, self.input, outputs)
        if all(right):
            return Judgement(reason="Every output is what is computed.", valid=True, score=5, wrong_step=None)
        first = right.index(False) + 1
        reason = f"Step {first} gives something else."
        return Judgement(reason=reason, valid=False, score=2 if right.count(False) == 1 else 1, wrong_step=first)


def question(row: Row) -> Question:
    """Return the question about a whole chain."""
    draft = Draft.from_row(row)
    return Judge(draft.input, tuple((step.instruction, step.output or "") for step in draft.steps))


def take(row: Row, answer: Answered[Judgement], least_score: int) -> list[Result]:
    """Return the chain with the opinion; reject it below the score.

    Args:
      row: the chain.
      answer: to the question about it.
      least_score: of 1 to 5.
    """
    reply, draft = answer.value, Draft.from_row(row)
    opinion = Opinion(reply.valid, reply.score, reply.wrong_step, reply.reason)
    judged = dataclasses.replace(draft, opinion=opinion, replies=(*draft.replies, *answer.keys)).row()
    if reply.score < least_score:
        return [(REJECTED, {"reason": POOR, "row": judged})]
    return [(OUT, judged)]
