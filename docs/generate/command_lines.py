"""Generate the reference of command lines from the `--help` of each command."""

import contextlib
import importlib
import io
import os
from collections.abc import Iterator
from unittest import mock

from coi_jax.common import cli

# In the order in which they are used.
COMMANDS = (
    "data_pipeline.procedural",
    "data_pipeline.release",
    "data_pipeline.benchmarks",
    "data_pipeline.build",
    "data_pipeline.curate",
    "data_pipeline.audit",
    "coi_jax.config",
    "data_pipeline.cache",
    "coi_jax.train",
    "coi_jax.batch",
    "coi_jax.evaluate",
    "coi_jax.generate",
    "coi_jax.serve",
    "coi_jax.convert",
    "coi_jax.compare",
    "coi_jax.tables",
    "coi_jax.report",
    "coi_jax.judge",
    "coi_jax.spans",
    "launch.sweep",
    "launch.preflight",
    "launch.preflight.table",
)
WIDTH = "100"


def help_text(module: str) -> str:
    """Return what `python -m MODULE --help` prints, without a process of its own."""
    command = importlib.import_module(module)
    if hasattr(command, "__path__"):
        command = importlib.import_module(f"{module}.__main__")
    output = io.StringIO()
    with _as_program(module), contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        command.main(["--help"])
    return output.getvalue()


@contextlib.contextmanager
def _as_program(module: str) -> Iterator[None]:
    """Give argparse the name and the width of a command that a user starts."""
    program = mock.patch.object(cli, "program", return_value=f"python -m {module}")
    with program, mock.patch.dict(os.environ, COLUMNS=WIDTH):
        yield


def markdown() -> str:
    """Return a section with the help of each command."""
    return "\n".join(f"## {module}\n\n```text\n{help_text(module).rstrip()}\n```\n" for module in COMMANDS)
