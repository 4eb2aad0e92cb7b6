"""Damaged inputs of every kind are read, or refused with one line: no crash, no hang, no filled memory."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers.fuzzing import MEMORY, fuzzer
from tests.soak.targets.names import SHARES

Fuzz = Callable[[str, int, int], dict[str, Any]]
Measured = Callable[..., None]
LEAST = 20  # inputs of each target


@pytest.fixture(scope="module")
def fuzz() -> Iterator[Fuzz]:
    with fuzzer() as ask:
        yield ask


@pytest.mark.xdist_group("fuzz")  # one process imports all readers
@pytest.mark.parametrize("name", SHARES)
def test_damaged_inputs_are_read_or_refused(
    fuzz: Fuzz, name: str, count: Callable[[str], int], seed: int, measured: Measured
) -> None:
    inputs = max(LEAST, round(count("inputs") * SHARES[name] / sum(SHARES.values())))
    found = fuzz(name, seed, inputs)
    measured(inputs=found["inputs"], refused=found["refused"], peak_mib=found["peak_mib"])
    told = "\n".join(
        f"{fault}\npython -m tests.helpers.fuzzing {name} {seed} {each['number']}\n{each['input']}\n{each['details']}"
        for fault, each in found["faults"].items()
    )
    assert not found["faults"], told
    assert found["inputs"] == inputs
    assert found["peak_mib"] < MEMORY >> 20
