import json
import sys
from pathlib import Path

import pytest

from benchmarks import sides
from benchmarks.sides import Side, SideError

MODULE = """
from benchmarks import sides

class Echo:
    def __init__(self, settings):
        self.settings = settings

    def double(self, number):
        print("this is not an answer")
        return self.settings["twice"] * number

    def fail(self):
        raise ValueError("no such thing")

    def end(self):
        raise SystemExit(3)

sides.serve(Echo)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "echo_side.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"twice": 2}))
    return path


def test_a_side_answers_and_says_what_went_wrong(settings: Path) -> None:
    with Side("echo_side", settings) as side:
        assert side.ask("double", number=4) == 8
        with pytest.raises(SideError, match="echo_side: ValueError: no such thing"):
            side.ask("fail")
        assert sides.all_ask([side], "double", number=5) == [10]
        with pytest.raises(SideError, match="ended with exit status 3"):
            side.ask("end")


def test_a_side_runs_with_the_interpreter_that_is_named(settings: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "{{\\"twice\\": 3}}" > "$3"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    with Side("echo_side", settings, python=str(python)) as side:
        assert side.ask("double", number=4) == 12


def test_the_peak_of_memory_is_that_since_it_was_last_forgotten() -> None:
    held = bytearray(64 * 2**20)
    before = sides.peak_memory()
    del held
    sides.forget_peak_memory()
    assert 2**20 < sides.peak_memory() < before - 32 * 2**20


def test_the_spread_of_repeats() -> None:
    assert sides.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}
