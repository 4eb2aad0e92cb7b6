"""Silences what Beam logs about Google services that are not installed, and about errors that it raises anyway.

The names of its modules and loggers are internal to Beam: tests/data_pipeline/build/engine/test_quiet_beam.py shows
what breaks when they change.
"""

import logging

# Of the loggers of errors that Beam raises anyway: in a worker, and where the worker then cannot be closed.
RAISED = ("apache_beam.runners.common", "apache_beam.runners.portability.fn_api_runner.worker_handlers")


def silence_beam() -> None:
    """Drop Beam's warnings on the root logger, and its log of errors in workers; call it before Beam is imported."""
    logging.getLogger().addFilter(_is_not_a_warning_of_beam)
    for name in RAISED:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _is_not_a_warning_of_beam(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or "apache_beam" not in record.pathname
