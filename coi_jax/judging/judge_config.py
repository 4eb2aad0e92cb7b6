"""The config of a judge: the model that is asked, and what it is shown."""

from collections.abc import Mapping
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from coi_jax.common.schema import Section
from coi_jax.config import loading
from coi_jax.config.overrides import override
from coi_jax.config.validation import validate
from coi_jax.llm.settings import EndpointConfig


class JudgeConfig(Section):
    """A language model that says which of two answers is better."""

    endpoint: EndpointConfig
    shows_reference: bool  # whether the judge sees the right answer too
    examples: PositiveInt | None  # pairs that are judged, in an order that follows from their ids; None: all
    bootstrap: PositiveInt  # resamples behind an interval
    seed: NonNegativeInt  # of the resampling, and of the sides on which people see the answers
    store: str  # of replies: what is here is never paid again


def load_judge_config(path: str, overrides: Mapping[str, Any], *, needs_model: bool = True) -> JudgeConfig:
    """Load the config of a judge, with overrides and with the endpoint of the environment.

    Args:
      path: of the config file.
      overrides: of its fields, by dotted names.
      needs_model: whether a model is going to be asked.

    Raises:
      UserError: a field is wrong, or no model is named.
    """
    values = loading.read(path)
    override(values, overrides, JudgeConfig)
    config = validate(JudgeConfig, values)
    return config.model_copy(update={"endpoint": config.endpoint.resolved(needs_model=needs_model)})
