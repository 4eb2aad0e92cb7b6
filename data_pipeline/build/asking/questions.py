"""What a model is asked on the way, one class for each kind of question, with the form of its reply.

The words are in `prompts/*.toml`, with a version and few-shot examples of this project's own (the paper's prompts are
not public). Whatever comes from data stands between marks that its own hash names, so that no text can end its fence.
"""

import functools
import hashlib
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import AfterValidator, PositiveInt

from coi_jax.common import files
from coi_jax.llm import Call, Message
from coi_jax.llm.settings import EndpointConfig
from coi_jax.llm.structured import response_format
from data_pipeline.build.rules import load

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


class Category(ReplyForm):
    """A category of the rules."""

    category: Literal[tuple(load().categories)]  # type: ignore[valid-type]


class Composable(ReplyForm):
    """Whether the second instruction can be carried out on what the first gave, and why."""

    reason: Text
    composable: bool


class Output(ReplyForm):
    """What carrying out an instruction gave."""

    output: Text


class Judgement(ReplyForm):
    """An opinion of a whole chain."""

    reason: Text
    valid: bool
    score: Literal[1, 2, 3, 4, 5]
    wrong_step: int | None


@dataclass(frozen=True)
class Question:
    """What is asked; its fields are put into the prompt of its name."""

    prompt: ClassVar[str]
    form: ClassVar[type[ReplyForm]]

    def texts(self) -> dict[str, str]:
        """The fields as the prompt has them."""
        return asdict(self)


@dataclass(frozen=True)
class Summarise(Question):
    """A short wording of a task's definition (paper, section 3: 62 words on average become 14)."""

    prompt, form = "summarise", Instruction
    definition: str


@dataclass(frozen=True)
class Categorise(Question):
    """The category of a task that its source gives none."""

    prompt, form = "categorise", Category
    definition: str
    input: str
    output: str

    def texts(self) -> dict[str, str]:
        """With the categories to choose from."""
        return asdict(self) | {"categories": "\n".join(load().categories)}


@dataclass(frozen=True)
class Check(Question):
    """Whether an instruction can follow another, seen on an instance."""

    prompt, form = "check", Composable
    first: str
    input: str
    output: str
    second: str


@dataclass(frozen=True)
class Answer(Question):
    """The output of an instruction for an input."""

    prompt, form = "answer", Output
    definition: str
    instruction: str
    input: str


@dataclass(frozen=True)
class Judge(Question):
    """A second opinion on a chain: pairs of instruction and output."""

    prompt, form = "judge", Judgement
    input: str
    steps: tuple[tuple[str, str], ...]

    def texts(self) -> dict[str, str]:
        """With the steps one below the other."""
        steps = (f"{k}. {instruction}\nOutput {k}: {output}" for k, (instruction, output) in enumerate(self.steps, 1))
        return {"input": self.input, "steps": "\n".join(steps)}


@dataclass(frozen=True)
class Fuse(Question):
    """One instruction that asks for all steps and names none of them."""

    prompt, form = "fuse", Instruction
    instructions: tuple[str, ...]

    def texts(self) -> dict[str, str]:
        """With the instructions one below the other."""
        return {"instructions": "\n".join(f"{k}. {text}" for k, text in enumerate(self.instructions, 1))}


QUESTIONS: tuple[type[Question], ...] = (Summarise, Categorise, Check, Answer, Judge, Fuse)


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
    template: str  # of the user's turn; `{field}` stands for a fenced field
    examples: tuple[Example, ...]


@functools.cache
def prompt(name: str) -> Prompt:
    """A prompt of the project."""
    return Prompt.model_validate(tomllib.loads((PROMPTS / f"{name}.toml").read_text(encoding="utf-8")))


def prompt_identity(name: str) -> dict[str, Any]:
    """The version of a prompt and a hash of its file, for manifests and for what stages depend on."""
    return {"version": prompt(name).version, "sha256": files.sha256(PROMPTS / f"{name}.toml")}


def fence(name: str, text: str) -> str:
    r"""A text between marks that it cannot hold, as they are named by a hash of it.

    Example: `("input", "a b")` → `<<input c8687a08aa5d\na b\nc8687a08aa5d input>>`.
    """
    mark = hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
    return f"<<{name} {mark}\n{text}\n{mark} {name}>>"


def messages(question: Question) -> tuple[Message, ...]:
    """The conversation that asks a question: the rules, worked examples as turns that came before, and the question."""
    words = prompt(question.prompt)
    turns = [Message("system", words.system.strip())]
    for example in words.examples:
        turns.append(Message("user", _user(words, example.fields)))
        turns.append(Message("assistant", example.reply))
    return (*turns, Message("user", _user(words, question.texts())))


def _user(words: Prompt, fields: dict[str, str]) -> str:
    return words.template.strip().format_map({name: fence(name, text) for name, text in fields.items()})


def call(question: Question, endpoint: EndpointConfig) -> Call:
    """The call that asks a question of an endpoint."""
    form = response_format(endpoint.structured, question.form)
    limit = prompt(question.prompt).max_tokens
    return Call(endpoint.model, messages(question), endpoint.temperature, limit, form)
