"""Loads the config of a build: a file, the command line's overrides, and the endpoints of the environment."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from coi_jax.common.errors import UserError, nearest
from coi_jax.config import loading
from coi_jax.config.overrides import override
from coi_jax.config.validation import validate
from data_pipeline.build.build_config import EXAMPLES, BuildConfig, SourceConfig
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
        resolved = opinion.endpoint.resolved(needs_model=needs_model, field="opinion.endpoint")
        opinion = opinion.model_copy(update={"endpoint": resolved})
    endpoint = config.endpoint.resolved(needs_model=needs_model)
    return config.model_copy(update={"endpoint": endpoint, "opinion": opinion})


def parse_sources(texts: Sequence[str], columns: str | None) -> tuple[dict[str, Any], ...]:
    """Parse the command line's sources of single instructions.

    Args:
      texts: each `KIND:PATH`.
      columns: those of the sources of rows, as `parse_columns` reads them; None where they are recognized.

    Raises:
      UserError: a source or the columns are written otherwise, or no source has a use for the columns.
    """
    sources = tuple(parse_source(text, {} if columns is None else parse_columns(columns)) for text in texts)
    if columns is not None and not any(source["columns"] for source in sources):
        raise UserError("--columns", columns, "belongs to a source of rows; give --source rows:PATH too")
    return sources


def parse_source(text: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """Parse a source of single instructions from the command line's `KIND:PATH`.

    Args:
      text: the source.
      columns: of sources of rows.

    Raises:
      UserError: it names no kind that is known, no path, or a dataset without its split.
    """
    kind, colon, path = text.partition(":")
    kinds = list(get_args(SourceConfig.model_fields["kind"].annotation))
    if not colon or path.startswith("//"):
        raise UserError("--source", text, f"names no kind; write KIND:PATH, as rows:{text}")
    if kind not in kinds:
        raise UserError("--source", text, f"{kind} is {nearest(kind, kinds)}")
    path, _, split = path.rpartition(":") if kind == "dataset" else (path, "", "")
    if kind == "dataset" and (not path or not split or "/" in split):  # gs://… has a colon of its own
        raise UserError("--source", text, f"names no split; write dataset:DIR:SPLIT, as {text.rstrip(':')}:train")
    if not path:
        raise UserError("--source", text, f"names no path; write {kind}:PATH")
    return {"kind": kind, "path": path, "split": split, "columns": dict(columns) if kind in EXAMPLES else {}}


def parse_columns(text: str) -> dict[str, str]:
    """Parse the command line's `instruction=NAME,input=NAME,output=NAME`; raise UserError where it is otherwise."""
    pairs = [part.partition("=") for part in text.split(",")]
    names = {field.strip(): name.strip() for field, _, name in pairs}
    is_whole = len(names) == len(pairs) and all(names.values())
    if not is_whole or not {INSTRUCTION, OUTPUT} <= names.keys() <= {INSTRUCTION, INPUT, OUTPUT}:
        raise UserError("--columns", text, "write instruction=NAME,input=NAME,output=NAME (input may be left out)")
    if len(set(names.values())) < len(names):
        raise UserError("--columns", text, "names a column twice; each text needs a column of its own")
    return names
