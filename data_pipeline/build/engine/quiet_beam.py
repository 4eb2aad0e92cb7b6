"""Imports Beam first, without what it says of Google's services that are not installed, nor of errors it raises."""

import logging

_root = logging.getLogger()
_level = _root.level
_root.setLevel(logging.ERROR)
import apache_beam.runners.portability.fn_api_runner  # noqa: E402,F401

_root.setLevel(_level)
logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
