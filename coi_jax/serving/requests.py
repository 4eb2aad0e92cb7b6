"""What clients may ask: the fields of OpenAI's chat completions and completions, and `coi`, the steps of a chain.

A field that would change an answer and is not computed here is refused unless it holds what is done anyway. Fields that
change no answer are ignored.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field, PositiveInt

from coi_jax.common.json_reader import JsonError, parse_json
from coi_jax.inference.request_decoding import TOP_LOGPROBS
from coi_jax.serving.errors import ApiError

MOST_CHOICES = 16
MOST_STOPS = 4
MOST_PROMPTS = 64
MOST_STEPS = 30

# Fields that are known, with the values that ask for what is done anyway.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "parallel_tool_calls": (None, True, False),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "reasoning_effort": (None,),
    "response_format": (None, {"type": "text"}),
    "suffix": (None, ""),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "verbosity": (None,),
    "web_search_options": (None,),
}
IGNORED = frozenset(
    {"metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "user"}
)

Text = Annotated[str, Field(max_length=2**20)]


class Part(pydantic.BaseModel):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


class Message(pydantic.BaseModel):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]

    @property
    def text(self) -> str:
        """Return the whole content."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Steps(pydantic.BaseModel, extra="forbid"):
    """A chain of instructions, as the field `coi`.

    Attributes:
      instructions: of the steps, in order.
      input: what the first instruction is applied to.
      outputs: of the first steps, where these are given: the answer goes on after them.
    """

    instructions: Annotated[list[Text], Field(min_length=1, max_length=MOST_STEPS)]
    input: Text = ""
    outputs: list[Text] = Field(default_factory=list)

    @pydantic.model_validator(mode="after")
    def _leave_a_step(self) -> "Steps":
        if not all(instruction.strip() for instruction in self.instructions):
            raise ValueError("instructions: a step is empty; say what to do")
        if len(self.outputs) >= len(self.instructions):
            raise ValueError("outputs: must be fewer than the instructions: the last step is the model's")
        return self


class StreamOptions(pydantic.BaseModel, extra="forbid"):
    """Options of a reply in parts."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Completion(pydantic.BaseModel, extra="allow"):
    """What all requests have in common."""

    model: Annotated[str, Field(max_length=1000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: PositiveInt | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the texts before which an answer ends."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(filter(None, given))

    @property
    def choices(self) -> int:
        """Return the number of answers to each prompt."""
        return self.n or 1

    @property
    def limit(self) -> int | None:
        """Return the most tokens of an answer, None where the request has no wish."""
        return self.max_tokens

    @property
    def tells_usage(self) -> bool:
        """Return whether a stream ends with the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatCompletion(Completion):
    """A request to `/v1/chat/completions`."""

    messages: list[Message] = Field(default_factory=list)
    coi: Steps | None = None
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=TOP_LOGPROBS)] | None = None

    @pydantic.model_validator(mode="after")
    def _tell_top_of_what_is_told(self) -> "ChatCompletion":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs = true")
        return self

    @property
    def limit(self) -> int | None:
        """See `Completion.limit`."""
        return self.max_completion_tokens or self.max_tokens


class TextCompletion(Completion):
    """A request to `/v1/completions`."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
    logprobs: Annotated[int, Field(ge=0, le=TOP_LOGPROBS)] | None = None

    @property
    def prompts(self) -> list[str]:
        """Return all prompts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


Asked = TypeVar("Asked", bound=Completion)


def read_request(schema: type[Asked], body: bytes) -> Asked:
    """Return the request that a body holds.

    Args:
      schema: of the request.
      body: as it was sent.

    Raises:
      ApiError: it is not JSON, or a field is unknown, of another type, or asks for what is not computed here.
    """
    try:
        value = parse_json(body)
    except JsonError as error:
        raise ApiError(400, f"the body: {str(error).replace(' the file', ' it')}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body should be a JSON object")
    try:
        asked = schema.model_validate(value, strict=True)
    except pydantic.ValidationError as error:
        raise _as_api_error(error) from None
    for name, given in (asked.model_extra or {}).items():
        _check_extra(name, given)
    return asked


def _check_extra(name: str, value: Any) -> None:
    """Raise ApiError where a field besides those of the schema may not have its value."""
    if name in IGNORED:
        return
    if name not in NEUTRAL:
        raise ApiError(400, f"{name[:100]}: no such field; leave it out", name[:100], "unknown_parameter")
    if value in NEUTRAL[name]:
        return
    checks = ", and check the form of the answer" if name == "response_format" else ""
    raise ApiError(400, f"{name}: is not computed here; leave it out{checks}", name, "unsupported_parameter")


def _as_api_error(error: pydantic.ValidationError) -> ApiError:
    """Return one fault of a request. Of a field that may have several types, that of the type that it has."""
    faults = error.errors(include_url=False, include_input=False)
    fault = max(faults, key=lambda fault: (not fault["type"].endswith("_type"), len(fault["loc"])))
    param = ".".join(str(part) for part in fault["loc"] if not _is_alternative(part)) or None
    reason = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return ApiError(400, f"{param}: {reason}" if param else reason, param, "invalid_value")


def _is_alternative(part: int | str) -> bool:
    """Return whether a part of a place is pydantic's name of a type, and not a field."""
    return isinstance(part, str) and re.search(r"[\[\]()-]|^(str|list)$", part) is not None
