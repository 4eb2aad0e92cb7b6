"""LLM stage: check whether a candidate's last step can be carried out on the output of the step before it."""

from dataclasses import dataclass
from typing import Any

from coi_jax.llm import Answered
from data_pipeline.build.asking.ask_transform import Result
from data_pipeline.build.asking.questions import Question, ReplyForm, Text
from data_pipeline.build.drafts import Draft, Verdict
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Row
from data_pipeline.procedural.verification import execute

NOT_COMPOSABLE = "not composable"
VALID_SHARES = {2: 0.75}  # candidates that people found valid, by length (paper, section 3); of longer ones:
VALID_SHARE_LONGER = 0.59


class Composable(ReplyForm):
    """A verdict: can the second instruction be carried out on the output of the first, and why."""

    reason: Text
    composable: bool


@dataclass(frozen=True)
class Check(Question):
    """Ask whether an instruction can follow another, given an instance of the first."""

    prompt, form, reply_tokens = "check", Composable, 40
    first: str
    input: str
    output: str
    second: str

    def computed_reply(self) -> Composable:
        """Return the verdict that computing the second instruction gives."""
        result = execute(self.second, self.output)
        if result is None:
            return Composable(reason="The second cannot be computed on what the first gave.", composable=False)
        if result in (self.input, self.output):
            return Composable(reason="The second gives back a text that was there before.", composable=False)
        return Composable(reason="The second can be computed on what the first gave.", composable=True)


def is_composable(first_input: str, output: str, second: str) -> bool:
    """Compute whether an instruction can follow.

    Args:
      first_input: the input of the instruction before it.
      output: its output.
      second: the instruction, of a procedural operation.
    """
    return Check("", first_input, output, second).computed_reply().composable


def question(row: Row) -> Question:
    """Return the question about a candidate."""
    draft = Draft.from_row(row)
    before = draft.length - 1
    return Check(
        draft.steps[-2].instruction, draft.input_of(before), draft.input_of(before + 1), draft.steps[-1].instruction
    )


def take(row: Row, answer: Answered[Composable], _: Any) -> list[Result]:
    """Return the candidate with its verdict; reject it where the verdict is negative.

    Args:
      row: the candidate.
      answer: to the question about it.
      _: nothing of the config is needed.
    """
    draft, reply = Draft.from_row(row), answer.value
    judged = draft.judged(Verdict(draft.length, reply.composable, reply.reason), answer.keys).row()
    if reply.composable:
        return [(OUT, judged)]
    return [(REJECTED, {"reason": NOT_COMPOSABLE, "row": judged})]


def expected_share(length: int) -> float:
    """Return the share of candidates of a length that a forecast expects to pass."""
    return VALID_SHARES.get(length, VALID_SHARE_LONGER)
