"""Silences what Beam logs about Google services that are not installed, and about errors that it raises anyway.

The names of its modules and loggers are internal to Beam: tests/data_pipeline/build/engine/test_quiet_beam.py shows
what breaks when they change.
"""

import logging


def silence_beam() -> None:
    """Drop Beam's warnings on the root logger, and its log of errors in workers; call it before Beam is imported."""
    logging.getLogger().addFilter(_is_not_a_warning_of_beam)
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)


def _is_not_a_warning_of_beam(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or "apache_beam" not in record.pathname
