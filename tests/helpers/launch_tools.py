"""SkyPilot and xpk in environments of their own beside the project, or on the path, where they are installed."""

import shutil
from pathlib import Path

from tests.helpers.paths import ROOT


def _find(program: str, environment: str) -> list[str]:
    beside = ROOT.parent / environment / "bin" / program
    found = str(beside) if beside.is_file() else shutil.which(program)
    return [found] if found else []


SKY = _find("sky", "sky_env")
XPK = _find("xpk", "xpk_env")


def python_beside(program: str) -> str:
    """The interpreter of a program's environment."""
    return str(Path(program).with_name("python"))
