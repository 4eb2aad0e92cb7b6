"""The part of an answer that is the output of each step, as a language model marks it.

Models that are not tuned on chains write no labels. In the paper (table 3) a language model marks the span of each
step; a span counts only where it occurs in the answer, so that the model cannot mend what it reads.
"""

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
from pydantic import PositiveInt

from coi_jax.chains.chain import is_well_formed, parse
from coi_jax.common.progress import track
from coi_jax.judging.judge_config import SpansConfig
from coi_jax.judging.verdicts import check_answered
from coi_jax.llm import Answered, Call, Client, Message, Outcome, Rejected, ask
from coi_jax.llm.fencing import fence
from coi_jax.llm.structured import response_format

PROMPT_FILE = Path(__file__).with_name("spans.toml")


class Span(pydantic.BaseModel):
    """What a model says of one step: the text that it quotes, None where there is none, and whether it is correct."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    span: str | None
    correct: bool


NO_SPAN = Span(span=None, correct=False)


class SpansPrompt(pydantic.BaseModel):
    """The words of the question: `spans.toml`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    version: PositiveInt
    max_tokens: PositiveInt  # of the reply, besides the text that it quotes
    system: str
    template: str


@dataclass(frozen=True)
class ChainAnswer:
    """An answer to a chain.

    Attributes:
      id: of the chain.
      input: that the first step is applied to.
      instructions: of the steps.
      references: the reference output of each step, None where it has none.
      text: what the model wrote.
    """

    id: str
    input: str
    instructions: tuple[str, ...]
    references: tuple[str | None, ...]
    text: str

    @property
    def is_labelled(self) -> bool:
        """Return whether the answer has the labels of exactly its steps."""
        return is_well_formed(self.text, len(self.instructions))


@dataclass(frozen=True)
class MarkedAnswer:
    """The spans of an answer.

    Attributes:
      answer: that they are of.
      spans: one for each step; None where no reply could be used.
      marked_by: "labels", "model", or "nobody", where the answer is empty.
      fault: why no reply could be used, "" where one could.
    """

    answer: ChainAnswer
    spans: tuple[Span, ...] | None
    marked_by: str
    fault: str = ""


@functools.cache
def read_prompt() -> SpansPrompt:
    """Return the words of the question."""
    return SpansPrompt.model_validate(tomllib.loads(PROMPT_FILE.read_text(encoding="utf-8")))


@functools.cache
def reply_form(length: int) -> type[pydantic.BaseModel]:
    """Return the schema of a reply about a chain of so many steps: `step_1`, `step_2`, …, each a `Span`."""
    fields: dict[str, Any] = {f"step_{number}": (Span, ...) for number in range(1, length + 1)}
    return pydantic.create_model(
        f"Spans{length}", __config__=pydantic.ConfigDict(extra="forbid", frozen=True), **fields
    )


def make_call(answer: ChainAnswer, config: SpansConfig) -> Call:
    """Return the question about an answer."""
    prompt, endpoint = read_prompt(), config.endpoint
    assert endpoint.model
    steps = "\n".join(f"{number}. {text}" for number, text in enumerate(answer.instructions, 1))
    fields = {"steps": steps, "input": answer.input, "answer": answer.text}
    text = prompt.template.format(**{name: fence(name, value) for name, value in fields.items()})
    quoted = len(answer.text.encode()) // 2  # tokens: of English a fourth of the bytes, of other scripts up to a half
    return Call(
        endpoint.model,
        (Message("system", prompt.system.strip()), Message("user", text.strip())),
        endpoint.temperature,
        endpoint.reply_tokens or prompt.max_tokens + quoted,
        response_format(endpoint.structured, reply_form(len(answer.instructions))),
        endpoint.token_limit_field,
        endpoint.request_options,
    )


def mark(answers: Sequence[ChainAnswer], client: Client, config: SpansConfig) -> list[MarkedAnswer]:
    """Return the spans of every answer: by its labels where it has all, else as a model marks them.

    Nobody is asked about an empty answer, which has no span.

    Args:
      answers: to the chains of a test set.
      client: that is asked; replies that are stored already cost nothing.
      config: of the endpoint.

    Raises:
      UserError: the budget is spent, or the endpoint did not answer; the same command goes on.
    """
    marked = {answer.id: found for answer in answers if (found := _without_asking(answer, config))}
    asked = [answer for answer in answers if answer.id not in marked]
    forms = [reply_form(len(answer.instructions)) for answer in asked]
    waiting = [
        client.run(ask(client, make_call(answer, config), form)) for answer, form in zip(asked, forms, strict=True)
    ]
    outcomes = [future.result() for future in track(waiting, "marking steps", len(asked))]
    check_answered(outcomes)
    marked |= {answer.id: _marked(answer, outcome) for answer, outcome in zip(asked, outcomes, strict=True)}
    return [marked[answer.id] for answer in answers]


def _without_asking(answer: ChainAnswer, config: SpansConfig) -> MarkedAnswer | None:
    if not answer.text.strip():
        return MarkedAnswer(answer, (NO_SPAN,) * len(answer.instructions), "nobody")
    if answer.is_labelled and not config.asks_about_labelled:
        return MarkedAnswer(answer, tuple(Span(span=text, correct=True) for text in parse(answer.text)), "labels")
    return None


def _marked(answer: ChainAnswer, outcome: Outcome[pydantic.BaseModel]) -> MarkedAnswer:
    if isinstance(outcome, Answered):
        numbers = range(1, len(answer.instructions) + 1)
        return MarkedAnswer(answer, tuple(getattr(outcome.value, f"step_{number}") for number in numbers), "model")
    assert isinstance(outcome, Rejected)
    return MarkedAnswer(answer, None, "model", outcome.reason)


def occurs(span: str, text: str) -> bool:
    """Return whether a span stands in a text, letter by letter, however its words are spaced. An empty one does not."""
    words = " ".join(span.split())
    return bool(words) and words in " ".join(text.split())
