"""How often the tests of `tests/soak` try what they try: options of pytest, small unless `--full` is given."""

from typing import NamedTuple

import pytest

FIGURES = "soak"  # the property of a test's report that holds what it measured


class Count(NamedTuple):
    """How many there are of something, by default and in `make soak`."""

    usual: int
    full: int
    meaning: str


# Adding a line adds an option: `"kills"` is `--kills N`.
COUNTS = {
    "kills": Count(3, 100, "kills of a training; of every other command a fifth of it"),
    "damages": Count(6, 100_000, "damages of files that each folder is tried with; all where it has fewer"),
    "faults": Count(1, 50, "disks that are full at a random moment of a command"),
    "inputs": Count(3000, 1_000_000, "damaged inputs of all readers together"),
    "steps": Count(40, 20_000, "steps of a long training"),
    "requests": Count(40, 10_000, "requests to a server"),
    "calls": Count(200, 100_000, "calls of a language model"),
    "sizes": Count(2, 4, "numbers of devices that a run moves between"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options. `tests/conftest.py` imports this; a conftest of a folder below is read too late for it."""
    group = parser.getgroup("soak", "tests of reliability (tests/soak)")
    group.addoption("--full", action="store_true", help="full counts, for hours")
    group.addoption("--soak_seed", type=int, default=0, help="what is drawn follows from it")
    group.addoption("--figures", metavar="FILE", help="where to write what was measured, as JSON")
    for name, count in COUNTS.items():
        group.addoption(f"--{name}", type=int, metavar="N", help=f"{count.meaning} ({count.usual}, full: {count.full})")


def count(config: pytest.Config, name: str) -> int:
    """How many were asked for."""
    given: int | None = config.getoption(f"--{name}")
    if given is not None:
        return given
    return COUNTS[name].full if config.getoption("--full") else COUNTS[name].usual
