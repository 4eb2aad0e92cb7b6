"""Loads the config of a build: a file, the command line's overrides, and the endpoints of the environment."""

from typing import Any

from coi_jax.config import loading
from coi_jax.config.overrides import override
from coi_jax.config.validation import validate
from data_pipeline.build.build_config import BuildConfig


def load(path: str, overrides: dict[str, Any]) -> BuildConfig:
    """Load the config of a file, with overrides and with the endpoints of the environment.

    Raises:
      UserError: a field is wrong, or no model is named.
    """
    values = loading.read(path)
    override(values, overrides, BuildConfig)
    config = validate(BuildConfig, values)
    if config.llm == "procedural":
        return config
    opinion = config.opinion
    if opinion.enabled:
        opinion = opinion.model_copy(update={"endpoint": opinion.endpoint.resolved()})
    return config.model_copy(update={"endpoint": config.endpoint.resolved(), "opinion": opinion})


def parse_source(text: str) -> dict[str, str]:
    """Parse a source of single instructions from the command line's `KIND:PATH`."""
    kind, _, path = text.partition(":")
    path, _, split = path.rpartition(":") if kind == "dataset" else (path, "", "")
    return {"kind": kind, "path": path, "split": split}
