"""The base of all questions to a language model, their prompts, and the calls that ask them.

The words of prompts are in `prompts/*.toml`, with a version and few-shot examples of this project's own (the paper's
prompts are not public). Text from data is fenced by marks with a hash of the text itself, so that no text can end its
own fence.
"""

import functools
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pydantic
from pydantic import AfterValidator, PositiveInt

from coi_jax.common import files
from coi_jax.llm import Call, Message
from coi_jax.llm.fencing import fence
from coi_jax.llm.settings import EndpointConfig
from coi_jax.llm.structured import response_format

PROMPTS = Path(__file__).parent / "prompts"


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text.strip()


Text = Annotated[str, AfterValidator(_not_blank)]


class ReplyForm(pydantic.BaseModel):
    """A closed schema: nothing besides its fields is allowed."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Instruction(ReplyForm):
    """An instruction."""

    instruction: Text


@dataclass(frozen=True)
class Question:
    """A question to a language model; its fields are put into the prompt of its name.

    Each LLM stage has a class of its own, in its module of `stages/`.
    """

    prompt: ClassVar[str]
    form: ClassVar[type[ReplyForm]]
    reply_tokens: ClassVar[float]  # of a typical reply, for forecasts

    def texts(self) -> dict[str, str]:
        """Return the fields as the prompt has them."""
        return asdict(self)

    def estimate_reply_tokens(self) -> float:
        """Estimate the tokens of the reply."""
        return self.reply_tokens

    def computed_reply(self) -> ReplyForm | None:
        """Return the right reply about procedural operations; None where nothing computes one."""
        return None


class Example(pydantic.BaseModel):
    """A worked example of a prompt: the fields of a question, and the reply to it as JSON."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    fields: dict[str, str]
    reply: str


class Prompt(pydantic.BaseModel):
    """The words of a question: `prompts/NAME.toml`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    version: PositiveInt
    max_tokens: PositiveInt  # of the reply
    system: str
    strategy: str = ""  # of a worked answer, with which the system message begins
    template: str  # of the user's turn; `{field}` stands for a fenced field
    examples: tuple[Example, ...]


@functools.cache
def prompt(name: str) -> Prompt:
    """Return a prompt of the project."""
    found = Prompt.model_validate(tomllib.loads((PROMPTS / f"{name}.toml").read_text(encoding="utf-8")))
    strategy = " ".join(found.strategy.split())  # a paragraph, which a student's prompt may begin with
    return found.model_copy(update={"strategy": strategy, "system": f"{strategy}\n\n{found.system.strip()}".strip()})


def prompt_identity(name: str) -> dict[str, Any]:
    """Return the version of a prompt and a hash of its file, for manifests and for what stages depend on."""
    return {"version": prompt(name).version, "sha256": files.sha256(PROMPTS / f"{name}.toml")}


def messages(question: Question) -> tuple[Message, ...]:
    """Return the conversation that asks a question: the rules, worked examples as earlier turns, and the question."""
    words = prompt(question.prompt)
    turns = [Message("system", words.system.strip())]
    for example in words.examples:
        turns.append(Message("user", _user(words, example.fields)))
        turns.append(Message("assistant", example.reply))
    return (*turns, Message("user", _user(words, question.texts())))


def _user(words: Prompt, fields: dict[str, str]) -> str:
    return words.template.strip().format_map({name: fence(name, text) for name, text in fields.items()})


def call(question: Question, endpoint: EndpointConfig) -> Call:
    """Return the call that asks a question of an endpoint."""
    form = response_format(endpoint.structured, question.form)
    limit = endpoint.reply_tokens or prompt(question.prompt).max_tokens
    return Call(
        endpoint.model or "",
        messages(question),
        endpoint.temperature,
        limit,
        form,
        endpoint.token_limit_field,
        endpoint.request_options,
    )
