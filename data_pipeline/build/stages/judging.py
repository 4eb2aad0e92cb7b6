"""Stage 7: another model's opinion of whole chains; those below a score are left out.

In the paper 25% of pairs and 41% of triplets were invalid when people looked (section 3).
"""

import dataclasses
from collections.abc import Callable

import apache_beam as beam

from coi_jax.llm import Answered
from data_pipeline.build.asking.ask_transform import Result, asked
from data_pipeline.build.asking.questions import Judge, Judgement, Question
from data_pipeline.build.drafts import Draft, Opinion
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Flow, Row
from data_pipeline.build.stages.wording import AskOf

POOR = "below least_score in a second opinion"


def opine(rows: list[Flow], ask: AskOf, least_score: int) -> dict[str, Flow]:
    """The flows of the stage.

    Args:
      rows: whole chains, of any lengths.
      ask: who is asked.
      least_score: of 1 to 5.
    """
    together = tuple(rows) | "all chains" >> beam.Flatten()
    return asked(together, ask(judge_question, _with_opinion(least_score)))


def judge_question(row: Row) -> Question:
    """What the second model thinks of a chain."""
    draft = Draft.from_row(row)
    return Judge(draft.input, tuple((step.instruction, step.output or "") for step in draft.steps))


def _with_opinion(least_score: int) -> Callable[..., list[Result]]:
    def take(row: Row, answer: Answered[Judgement]) -> list[Result]:
        said, draft = answer.value, Draft.from_row(row)
        opinion = Opinion(said.valid, said.score, said.wrong_step, said.reason)
        done = dataclasses.replace(draft, opinion=opinion, replies=(*draft.replies, *answer.keys)).row()
        if said.score < least_score:
            return [(REJECTED, {"reason": POOR, "row": done})]
        return [(OUT, done)]

    return take
