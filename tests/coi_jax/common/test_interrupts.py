"""Ctrl-C at the moments in which Python alone would print a traceback, or drop it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

LINE = "interrupted; run the same command again\n"


def interrupted(program: str, *arguments: str) -> tuple[int, str]:
    """The status and stderr of a program that sends itself SIGINT."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    return done.returncode, done.stderr


OF_ITS_OWN = """
import os, signal, sys
from coi_jax.common import cli
def main():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None
    return 0
sys.exit(cli.run(main))
"""


def test_an_interrupt_that_a_library_turns_into_its_own_error_is_one_line() -> None:
    assert interrupted(OF_ITS_OWN) == (130, LINE)


IN_IMPORT = """
import sys
from coi_jax.common import cli
sys.path.insert(0, sys.argv[1])
def main():
    import module
    return 0
sys.exit(cli.run(main))
"""


CATCHES_ALL = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    print("caught")
"""


def test_an_import_ends_at_once_whatever_it_catches(tmp_path: Path) -> None:
    catches = (
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    print('caught')\n"
    )
    (tmp_path / "module.py").write_text(catches, encoding="utf-8")
    assert interrupted(IN_IMPORT, str(tmp_path)) == (130, LINE)


IN_CALLBACK = """
import gc, os, signal, sys, time
from coi_jax.common import cli
def callback(phase, details):
    gc.callbacks.clear()
    os.kill(os.getpid(), signal.SIGINT)
def main():
    gc.callbacks.append(callback)
    gc.collect()
    time.sleep(30)
    return 0
sys.exit(cli.run(main))
"""


def test_an_interrupt_in_a_callback_is_not_lost() -> None:
    began = time.monotonic()
    assert interrupted(IN_CALLBACK) == (130, LINE)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("imported", ["argparse", "typing", "threading", "pathlib"])
@pytest.mark.parametrize("module", ["coi_jax.evaluate", "data_pipeline.audit", "launch.sweep"])
def test_a_command_that_is_only_beginning_says_one_line(module: str, imported: str, tmp_path: Path) -> None:
    """An import of the standard library interrupts."""
    (tmp_path / f"{imported}.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n", encoding="utf-8"
    )
    program = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['-m']; "
    program += f"sys.modules.pop({imported!r}, None); "  # which an editable installation imports at the start
    program += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    assert interrupted(program) == (130, LINE)


def test_a_command_that_has_ended_says_one_line_too() -> None:
    program = "import sys; sys.argv = ['-m']; import coi_jax, os, signal; from coi_jax.common import cli\n"
    program += "cli.run(lambda: 0); os.kill(os.getpid(), signal.SIGINT)"
    assert interrupted(program) == (130, LINE)


def test_a_program_that_uses_the_package_keeps_its_own_way() -> None:
    status, printed = interrupted("import os, signal, coi_jax; os.kill(os.getpid(), signal.SIGINT)")
    assert status == -signal.SIGINT
    assert "KeyboardInterrupt" in printed


def test_a_command_that_is_shutting_down_keeps_its_status() -> None:
    program = (
        "import atexit, os, signal, sys; atexit.register(os.kill, os.getpid(), signal.SIGINT); sys.argv = ['-m']\n"
    )
    program += "import coi_jax; sys.exit(2)"
    assert interrupted(program) == (2, "")
