"""Loads the config of a build: a file, the command line's overrides, and the endpoints of the environment."""

from typing import Any

from coi_jax.config import loading
from coi_jax.config.overrides import override
from coi_jax.config.validation import validate
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.instruction_sources import paths


def load(path: str, overrides: dict[str, Any], *, needs_model: bool = True) -> BuildConfig:
    """Load the config of a file, with overrides and with the endpoints of the environment.

    Args:
      path: of the file.
      overrides: of its fields, by dotted names.
      needs_model: whether a model is going to be asked.

    Raises:
      UserError: a field is wrong, a source is missing, or no model is named.
    """
    values = loading.read(path)
    override(values, overrides, BuildConfig)
    config = validate(BuildConfig, values)
    if config.llm == "procedural":
        return config
    for source in config.seeds.sources:
        paths(source)  # a missing file is named before what would be asked about it
    opinion = config.opinion
    if opinion.enabled:
        resolved = opinion.endpoint.resolved(needs_model=needs_model)
        opinion = opinion.model_copy(update={"endpoint": resolved})
    endpoint = config.endpoint.resolved(needs_model=needs_model)
    return config.model_copy(update={"endpoint": endpoint, "opinion": opinion})


def parse_source(text: str) -> dict[str, str]:
    """Parse a source of single instructions from the command line's `KIND:PATH`."""
    kind, _, path = text.partition(":")
    path, _, split = path.rpartition(":") if kind == "dataset" else (path, "", "")
    return {"kind": kind, "path": path, "split": split}
