"""What the tests of reliability share: their counts, their seed, and the file of what they measured."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import kill_targets, killed, soak_options
from tests.helpers.soak_options import FIGURES

Measured = Callable[..., None]
_reported: list[dict[str, Any]] = []


@pytest.fixture
def count(pytestconfig: pytest.Config) -> Callable[[str], int]:
    """How many there are to be of something, by the name of its option."""
    return lambda name: soak_options.count(pytestconfig, name)


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    """What every random choice follows from; messages of failures name it."""
    value: int = pytestconfig.getoption("--soak_seed")
    return value


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished training."""
    folder = tmp_path_factory.mktemp("trained") / "whole"
    folder.mkdir()
    kill_targets.make_training(folder)
    killed.measure(kill_targets.TRAINING, folder)
    return folder / "run"


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Keeps figures of the test, as `measured(kills=20, lost=3)`: they are printed, and written by `--figures`."""
    start, figures = time.monotonic(), {"test": request.node.name}
    request.node.user_properties.append((FIGURES, figures))

    def keep(**values: Any) -> None:
        figures.update(values | {"seconds": round(time.monotonic() - start, 1)})

    return keep


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collects the figures of a test, also those of a worker of xdist."""
    if report.when == "call":
        found: list[Any] = [value for name, value in report.user_properties if name == FIGURES]
        _reported.extend({**value, "outcome": report.outcome} for value in found)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the figures of all tests, beside those of earlier sessions' other tests."""
    path = session.config.getoption("--figures")
    if not path or hasattr(session.config, "workerinput"):
        return
    place = Path(path)
    before = json.loads(place.read_text(encoding="utf-8")) if place.exists() else []
    names = {figures["test"] for figures in _reported}
    kept = [figures for figures in before if figures["test"] not in names] + _reported
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the figures."""
    for figures in _reported:
        terminalreporter.write_line(json.dumps(figures))
