"""The settings of an endpoint; its key stands in the environment alone."""

import os
from collections.abc import Mapping
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from coi_jax.common.errors import UserError
from coi_jax.common.schema import Section, Share

BASE_URL_VARIABLE = "OPENAI_BASE_URL"
MODEL_VARIABLE = "COI_LLM_MODEL"


class EndpointConfig(Section):
    """An OpenAI-compatible endpoint, and how hard it may be worked."""

    base_url: str | None  # None: of the variable OPENAI_BASE_URL, else OpenAI's own
    model: str | None  # None: of the variable COI_LLM_MODEL
    key_variable: str  # the environment variable that holds the key; keys stand in no config
    temperature: NonNegativeFloat
    # How the form of a reply is asked for: by a schema, as any JSON, or by the words of the prompt alone.
    structured: Literal["json_schema", "json_object", "text"]
    prompt_price: NonNegativeFloat  # US dollars for a million tokens
    completion_price: NonNegativeFloat
    batch_price_share: Share  # of these prices, for calls by the Batch API
    concurrency: PositiveInt  # calls in flight, of one process
    processes: PositiveInt  # that share the two limits below
    requests_per_minute: PositiveInt | None  # of all processes; None: no limit
    tokens_per_minute: PositiveInt | None  # of all processes; None: no limit
    timeout_seconds: PositiveFloat  # for a reply
    attempts: PositiveInt  # for a call that the endpoint fails to answer
    patience_seconds: PositiveFloat  # without any reply, after which the endpoint is taken to be down

    def resolved(self, environment: Mapping[str, str] = os.environ) -> "EndpointConfig":
        """Return the settings with those of the environment where the config names none.

        Raises:
          UserError: no model is named.
        """
        model = self.model or environment.get(MODEL_VARIABLE)
        if not model:
            raise UserError("endpoint.model", self.model, f"name the model, here or in the variable {MODEL_VARIABLE}")
        base_url = self.base_url or environment.get(BASE_URL_VARIABLE)
        return self.model_copy(update={"model": model, "base_url": base_url})

    def key(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the key; raise UserError where the environment has none."""
        key = environment.get(self.key_variable, "")
        if not key:
            hint = "is not set; it holds the endpoint's key (any word will do for an endpoint that asks for none)"
            raise UserError("endpoint.key_variable", self.key_variable, hint)
        return key
