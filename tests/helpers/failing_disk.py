"""Commands on a disk on which one call in so many fails or is slow (`failing_disk.c`), or rights are missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.helpers.paths import ROOT

SOURCE = Path(__file__).with_suffix(".c")
COMPILERS = [found for found in [shutil.which("cc")] if found and sys.platform == "linux"]
PROGRAM = """
import sys, pathlib
from tests.helpers import kill_targets, killed
name, folder, log = sys.argv[1:]
killed.run(getattr(kill_targets, name).command, pathlib.Path(folder), {}, pathlib.Path(log))
"""
# A superuser without the right to pass over the rights of files; anybody else has not got it anyway.
WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


def compile_library(compiler: str, folder: Path) -> Path:
    """The library that lets calls fail."""
    library = folder / "failing_disk.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def faults(folder: Path, library: Path, seed: int, every: int, seconds: float | None = None) -> dict[str, str]:
    """The environment in which calls fail.

    Args:
      folder: whose files they are about.
      library: of `compile_library`.
      seed: which calls fail.
      every: of so many calls one fails.
      seconds: that it takes, and succeeds; None lets it fail.
    """
    variables = {"LD_PRELOAD": library, "FAULTY_FOLDER": folder, "FAULTY_EVERY": every, "FAULTY_SEED": seed}
    slow = {} if seconds is None else {"FAULTY_SECONDS": seconds}
    return {name: str(value) for name, value in (variables | slow).items()}


def run(name: str, folder: Path, environment: Mapping[str, str], prefix: Sequence[str] = ()) -> tuple[int, str]:
    """Run a victim of `kill_targets` on a folder, in a process of its own; return its exit status and what it said.

    Args:
      name: of the victim.
      folder: that it works on.
      environment: variables besides this process's.
      prefix: the command that starts it, if any.
    """
    log = folder.parent / f"{folder.name}.log"
    log.unlink(missing_ok=True)
    variables = {"XDG_CACHE_HOME": str(folder.parent / "cache"), "XLA_FLAGS": "", **environment}
    command = [*prefix, sys.executable, "-c", PROGRAM, name, str(folder), str(log)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, timeout=300, check=False)
    return done.returncode, log.read_text(encoding="utf-8", errors="replace")
