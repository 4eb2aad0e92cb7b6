"""The configs of judges: the model that is asked, and what it is asked about."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import NonNegativeInt, PositiveInt

from coi_jax.common.schema import Section
from coi_jax.config import loading
from coi_jax.config.overrides import override
from coi_jax.config.validation import validate
from coi_jax.llm import Client
from coi_jax.llm.budget import Budget, Prices
from coi_jax.llm.reply_store import open_store
from coi_jax.llm.settings import EndpointConfig


class AskingConfig(Section):
    """A language model that is asked about answers."""

    endpoint: EndpointConfig
    examples: PositiveInt | None  # that are asked about, in an order that follows from their ids; None: all
    bootstrap: PositiveInt  # resamples behind an interval
    seed: NonNegativeInt  # of the resampling, and of the sides on which people see two answers
    store: str  # of replies: what is here is never paid again


class JudgeConfig(AskingConfig):
    """A language model that says which of two answers is better."""

    shows_reference: bool  # whether the judge sees the right answer too


class SpansConfig(AskingConfig):
    """A language model that marks the part of an answer that is the output of each step."""

    asks_about_labelled: bool  # also about answers that have all labels, which mark the steps themselves


Config = TypeVar("Config", bound=AskingConfig)


def load_judge_config(path: str, overrides: Mapping[str, Any], *, needs_model: bool = True) -> JudgeConfig:
    """Load the config of a judge, with overrides and with the endpoint of the environment.

    Args:
      path: of the config file.
      overrides: of its fields, by dotted names.
      needs_model: whether a model is going to be asked.

    Raises:
      UserError: a field is wrong, or no model is named.
    """
    return _load(JudgeConfig, path, overrides, needs_model)


def load_spans_config(path: str, overrides: Mapping[str, Any]) -> SpansConfig:
    """Load the config of a model that marks spans, with overrides and with the endpoint of the environment.

    Args:
      path: of the config file.
      overrides: of its fields, by dotted names.

    Raises:
      UserError: a field is wrong, or no model is named.
    """
    return _load(SpansConfig, path, overrides, needs_model=True)


def _load(kind: type[Config], path: str, overrides: Mapping[str, Any], needs_model: bool) -> Config:
    values = loading.read(path)
    override(values, overrides, kind)
    config = validate(kind, values)
    return config.model_copy(update={"endpoint": config.endpoint.resolved(needs_model=needs_model)})


def open_client(config: AskingConfig, dollars: float | None) -> Client:
    """Return a client of a config's endpoint, with its store of replies.

    Args:
      config: resolved.
      dollars: the most that all calls may cost; None: no limit.

    Raises:
      UserError: the environment has no key, or the store cannot be opened.
    """
    endpoint = config.endpoint
    prices = Prices(endpoint.prompt_price, endpoint.completion_price)
    budget = Budget(f"{config.store}.spent", dollars, prices, endpoint.concurrency)
    return Client(endpoint, endpoint.key(), open_store(config.store), budget)
