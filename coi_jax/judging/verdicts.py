"""Verdicts of a language model on pairs of answers, each pair shown in both orders.

A judge prefers what stands first more often than chance (Zheng et al., 2023, section 3.3), so each pair is asked about
twice; the verdict of a pair counts only where both orders agree.
"""

import functools
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import PositiveInt

from coi_jax.common.errors import UserError
from coi_jax.common.progress import track
from coi_jax.common.wording import count_of
from coi_jax.judging.answer_pairs import AnswerPair
from coi_jax.judging.judge_config import JudgeConfig
from coi_jax.llm import Answered, Call, Client, Message, Outcome, Rejected, Unanswered, ask
from coi_jax.llm.fencing import fence
from coi_jax.llm.structured import BUDGET, response_format

PROMPT_FILE = Path(__file__).with_name("judge.toml")
Choice = Literal["a", "b", "tie"]
ORDERS = (("a", "b"), ("b", "a"))


class Verdict(pydantic.BaseModel):
    """A judge's reply about two answers."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    reason: str
    better: Literal["first", "second", "tie"]


class JudgePrompt(pydantic.BaseModel):
    """The words of the question: `judge.toml`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    version: PositiveInt
    max_tokens: PositiveInt  # of the reply
    system: str
    template: str


@dataclass(frozen=True)
class Judgement:
    """What the judge says of one pair.

    Attributes:
      id: of the chain.
      choices: the better answer in each order; None where the reply could not be used.
      reasons: the judge's words in each order, or why the reply could not be used.
    """

    id: str
    choices: tuple[Choice | None, ...]
    reasons: tuple[str, ...]


@functools.cache
def read_prompt() -> JudgePrompt:
    """Return the words of the question."""
    return JudgePrompt.model_validate(tomllib.loads(PROMPT_FILE.read_text(encoding="utf-8")))


def make_call(pair: AnswerPair, order: tuple[str, str], config: JudgeConfig) -> Call:
    """Return the question about a pair.

    Args:
      pair: the answers.
      order: of the answers, as `("b", "a")`.
      config: the judge's.
    """
    prompt, endpoint = read_prompt(), config.endpoint
    assert endpoint.model
    reference = f"\nA right answer:\n{fence('reference', pair.reference)}\n" if config.shows_reference else ""
    fields = {"instruction": pair.instruction, "input": pair.input}
    fields |= {place: getattr(pair, run) for place, run in zip(("first", "second"), order, strict=True)}
    fenced = {name: fence(name, text) for name, text in fields.items()}
    text = prompt.template.format(reference=reference, **fenced)
    return Call(
        endpoint.model,
        (Message("system", prompt.system.strip()), Message("user", text.strip())),
        endpoint.temperature,
        endpoint.reply_tokens or prompt.max_tokens,
        response_format(endpoint.structured, Verdict),
        endpoint.token_limit_field,
        endpoint.request_options,
    )


def judge(pairs: Sequence[AnswerPair], client: Client, config: JudgeConfig) -> list[Judgement]:
    """Ask about every pair in both orders; replies that are stored already cost nothing.

    Args:
      pairs: the answers to compare.
      client: that is asked.
      config: the judge's.

    Raises:
      UserError: the budget is spent, or the endpoint did not answer; the same command goes on.
    """
    waiting = [[client.run(ask(client, make_call(pair, order, config), Verdict)) for order in ORDERS] for pair in pairs]
    outcomes = [[future.result() for future in futures] for futures in track(waiting, "judging", len(pairs))]
    check_answered(outcome for both in outcomes for outcome in both)
    return [_judgement(pair.id, both) for pair, both in zip(pairs, outcomes, strict=True)]


def check_answered(outcomes: Iterable[Outcome[Any]]) -> None:
    """Raise UserError where a question has no reply yet, with what to do."""
    open_calls = [outcome for outcome in outcomes if isinstance(outcome, Unanswered)]
    if not open_calls:
        return
    reason = open_calls[0].reason
    hint = f"no reply yet to {count_of(len(open_calls), 'question')}; replies are kept: run the same command again"
    if reason == BUDGET:
        raise UserError("--budget", "spent", f"{hint} with a larger one")
    raise UserError("endpoint", reason, hint)


def _judgement(id: str, outcomes: Sequence[Outcome[Verdict]]) -> Judgement:
    choices, reasons = [], []
    for order, outcome in zip(ORDERS, outcomes, strict=True):
        choices.append(_choice(outcome.value, order) if isinstance(outcome, Answered) else None)
        reasons.append(outcome.value.reason if isinstance(outcome, Answered) else _fault(outcome))
    return Judgement(id, tuple(choices), tuple(reasons))


def _choice(verdict: Verdict, order: tuple[str, str]) -> Choice:
    chosen = {"first": order[0], "second": order[1], "tie": "tie"}[verdict.better]
    return "a" if chosen == "a" else "b" if chosen == "b" else "tie"


def _fault(outcome: Outcome[Verdict]) -> str:
    assert isinstance(outcome, Rejected)
    return outcome.reason
