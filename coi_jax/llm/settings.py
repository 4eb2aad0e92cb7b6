"""The settings of an endpoint; its key stands in the environment alone."""

import os
import urllib.parse
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, PositiveInt

from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import HALF_A_PAIR, is_utf8
from coi_jax.common.schema import Section, Share

BASE_URL_VARIABLE = "OPENAI_BASE_URL"
MODEL_VARIABLE = "COI_LLM_MODEL"
# Fields of a request that have a setting of their own, and those that would change what is paid or how a reply is read.
RESERVED_FIELDS = (
    "model",
    "messages",
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "reasoning_effort",
    "n",
    "stream",
)
TokenLimitField = Literal["max_tokens", "max_completion_tokens"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EndpointConfig(Section):
    """An OpenAI-compatible endpoint, and how hard it may be worked."""

    base_url: str | None  # None: of the variable OPENAI_BASE_URL, else OpenAI's own
    model: str | None  # None: of the variable COI_LLM_MODEL
    key_variable: str  # the environment variable that holds the key; keys stand in no config
    temperature: NonNegative | None  # None: not sent, for models that take none
    token_limit_field: TokenLimitField  # the request's field that limits a reply's tokens
    reply_tokens: (
        PositiveInt | None
    )  # that a reply may have, thinking included; None: as the prompt of each question says
    reasoning_effort: str | None  # as the endpoint names it, as "low"; None: not sent
    extra_body: dict[str, Any]  # more fields of each request, as the endpoint has them
    # How the form of a reply is asked for: by a schema, as any JSON, or by the words of the prompt alone.
    structured: Literal["json_schema", "json_object", "text"]
    prompt_price: NonNegative  # US dollars for a million tokens
    completion_price: NonNegative
    batch_price_share: Share  # of these prices, for calls by the Batch API
    concurrency: PositiveInt  # calls in flight, of one process
    processes: PositiveInt  # that share the two limits below
    requests_per_minute: PositiveInt | None  # of all processes; None: no limit
    tokens_per_minute: PositiveInt | None  # of all processes; None: no limit
    timeout_seconds: Positive  # for a whole reply
    attempts: PositiveInt  # for a call that the endpoint fails to answer
    patience_seconds: Positive  # without any reply, after which the endpoint is taken to be down
    declined_share: Annotated[
        float, Field(ge=0, le=1)
    ]  # of a stage's calls that the endpoint may decline; more are an error

    @pydantic.field_validator("extra_body")
    @classmethod
    def _has_no_reserved_field(cls, extra_body: dict[str, Any]) -> dict[str, Any]:
        if reserved := sorted(set(extra_body) & set(RESERVED_FIELDS)):
            raise ValueError(f"may not hold {reserved[0]!r}: it has a setting of its own, or changes what is paid")
        return extra_body

    @property
    def request_options(self) -> dict[str, Any]:
        """Return the fields of a request that depend on neither question nor model, without those that are unset."""
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return effort | self.extra_body

    @property
    def identity(self) -> list[Any]:
        """Return what replies depend on, without options that are unset: those change nothing of what was made."""
        named = {"max_completion_tokens": self.token_limit_field != "max_tokens", "reply_tokens": self.reply_tokens}
        options = {name: value for name, value in named.items() if value} | self.request_options
        return ["endpoint", self.model, self.temperature, self.structured, *([options] if options else [])]

    def resolved(
        self, environment: Mapping[str, str] = os.environ, *, needs_model: bool = True, field: str = "endpoint"
    ) -> "EndpointConfig":
        """Return the settings with those of the environment where the config names none.

        Args:
          environment: variables by name.
          needs_model: whether the endpoint is going to be asked.
          field: the name of these settings in an error.

        Raises:
          UserError: no model is named, or the address is none.
        """
        model = self.model or environment.get(MODEL_VARIABLE)
        if not model and needs_model:
            raise UserError(f"{field}.model", self.model, f"name the model, here or in the variable {MODEL_VARIABLE}")
        if model and not is_utf8(model):
            raise UserError(f"{field}.model", model, HALF_A_PAIR)
        base_url = self.base_url or environment.get(BASE_URL_VARIABLE) or None
        if base_url is not None and not _is_address(base_url):
            raise UserError(f"{field}.base_url", base_url, "is no address; write it as http://HOST:PORT/v1")
        return self.model_copy(update={"model": model, "base_url": base_url})

    def key(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the key; raise UserError where the environment has none."""
        key = environment.get(self.key_variable, "").strip()  # as a file that it was read from ends a line
        if not key:
            hint = "is not set; it holds the endpoint's key (any word will do for an endpoint that asks for none)"
            raise UserError("endpoint.key_variable", self.key_variable, hint)
        if not (key.isascii() and key.isprintable()):
            raise UserError(
                "endpoint.key_variable", self.key_variable, "holds characters that no key has; set it again"
            )
        return key


def _is_address(url: str) -> bool:
    """Return whether a text is the address of an endpoint."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        return is_whole and url.isprintable()  # of which a half of a surrogate pair is none either
    except ValueError:
        return False
