import json
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


def test_the_spread_of_repeats() -> None:
    assert sides.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}
