"""Loads the config of a build: a file, the command line's overrides, and the endpoints of the environment."""

from collections.abc import Mapping
from typing import Any

from coi_jax.common.errors import UserError
from coi_jax.config import loading
from coi_jax.config.overrides import override
from coi_jax.config.validation import validate
from data_pipeline.build.build_config import EXAMPLES, BuildConfig
from data_pipeline.build.instruction_sources import paths
from data_pipeline.build.row_files import pinned
from data_pipeline.build.row_layouts import INPUT, INSTRUCTION, OUTPUT


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
    sources = tuple(source.model_copy(update={"path": pinned(source.path)}) for source in config.seeds.sources)
    for source in sources:
        paths(source)  # a missing file is named before what would be asked about it
    config = config.model_copy(update={"seeds": config.seeds.model_copy(update={"sources": sources})})
    opinion = config.opinion
    if opinion.enabled:
        resolved = opinion.endpoint.resolved(needs_model=needs_model)
        opinion = opinion.model_copy(update={"endpoint": resolved})
    endpoint = config.endpoint.resolved(needs_model=needs_model)
    return config.model_copy(update={"endpoint": endpoint, "opinion": opinion})


def parse_source(text: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """Parse a source of single instructions from the command line's `KIND:PATH`.

    Args:
      text: the source.
      columns: of sources of rows.
    """
    kind, _, path = text.partition(":")
    path, _, split = path.rpartition(":") if kind == "dataset" else (path, "", "")
    return {"kind": kind, "path": path, "split": split, "columns": dict(columns) if kind in EXAMPLES else {}}


def parse_columns(text: str) -> dict[str, str]:
    """Parse the command line's `instruction=NAME,input=NAME,output=NAME`; raise UserError where it is otherwise."""
    pairs = [part.partition("=") for part in text.split(",")]
    names = {field.strip(): name.strip() for field, _, name in pairs}
    if len(names) < len(pairs) or not {INSTRUCTION, OUTPUT} <= names.keys() <= {INSTRUCTION, INPUT, OUTPUT}:
        raise UserError("--columns", text, "write instruction=NAME,input=NAME,output=NAME (input may be left out)")
    return names
