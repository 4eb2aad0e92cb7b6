"""LLM stage: write the output of a candidate's last step, for exactly the output of the step before it."""

from dataclasses import dataclass

from coi_jax.llm import Answered
from coi_jax.llm.calls import estimate_tokens
from data_pipeline.build.asking.ask_transform import Result
from data_pipeline.build.asking.questions import Question, ReplyForm, Text
from data_pipeline.build.drafts import Draft
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Row
from data_pipeline.procedural.verification import execute

REPEATS = "a step gives back a text that the chain had before"
TOO_LONG = "an output longer than longest_words"
OVERHEAD_TOKENS = 8  # of a reply's JSON around an output


class Output(ReplyForm):
    """The output of an instruction."""

    output: Text


@dataclass(frozen=True)
class Answer(Question):
    """Ask for the output of an instruction for an input."""

    prompt, form = "answer", Output
    definition: str
    instruction: str
    input: str

    def estimate_reply_tokens(self) -> float:
        """Estimate the tokens of the reply: an output is taken to be a third as long as its input."""
        return OVERHEAD_TOKENS + estimate_tokens(self.input) / 3

    def computed_reply(self) -> Output | None:
        """Return the output that the operation gives."""
        output = execute(self.instruction, self.input)
        return None if output is None else Output(output=output)


def question(row: Row, definitions: dict[str, str]) -> Question:
    """Return the question about a candidate, with the definition of its last task."""
    draft = Draft.from_row(row)
    last = draft.steps[-1]
    return Answer(definitions[last.task or ""], last.instruction, draft.input_of(draft.length))


def take(row: Row, answer: Answered[Output], longest_words: int) -> list[Result]:
    """Return the chain with the output; reject one that repeats an earlier text or is too long.

    Args:
      row: the candidate.
      answer: to the question about it.
      longest_words: of an output.
    """
    draft, output = Draft.from_row(row), answer.value.output
    answered = draft.answered(output, answer.keys).row()
    if draft.repeats_earlier(output):
        return [(REJECTED, {"reason": REPEATS, "row": answered})]
    if len(output.split()) > longest_words:
        return [(REJECTED, {"reason": TOO_LONG, "row": answered})]
    return [(OUT, answered)]
