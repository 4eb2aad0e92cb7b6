import json
import os
import time
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from coi_jax.common.errors import UserError
from coi_jax.parallel import processes

VARIABLES = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
    "MEGASCALE_COORDINATOR_ADDRESS",
    "TPU_PROCESS_ADDRESSES",
    "TPU_WORKER_HOSTNAMES",
    "TPU_SKIP_MDS_QUERY",
    "JAX_PLATFORMS",
)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What JAX is asked to join with; the environment names nobody yet."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: asked.append(given))
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    return asked


@pytest.mark.parametrize(
    ("variable", "value", "joins"),
    [
        ("JAX_COORDINATOR_ADDRESS", "10.0.0.1:1234", True),
        ("MEGASCALE_COORDINATOR_ADDRESS", "10.0.0.1:1234", True),
        ("TPU_WORKER_HOSTNAMES", "host-0,host-1", True),
        ("TPU_WORKER_HOSTNAMES", "localhost", False),
        ("TPU_PROCESS_ADDRESSES", "host-0:8471,host-1:8471", True),
        ("HOME", "/nowhere", False),
    ],
)
def test_others_are_joined_only_where_the_environment_names_them(
    monkeypatch: pytest.MonkeyPatch, joined: list[dict[str, Any]], variable: str, value: str, joins: bool
) -> None:
    monkeypatch.setenv(variable, value)
    processes.join()
    assert len(joined) == joins


def test_a_tpu_vm_asks_its_metadata(monkeypatch: pytest.MonkeyPatch, joined: list[dict[str, Any]]) -> None:
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY")  # JAX sets it where it sees no chip
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "libtpu" else None)
    assert processes.are_several()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not processes.are_several()


def test_number_and_place_of_a_process_are_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, joined: list[dict[str, Any]]
) -> None:
    for variable, value in zip(VARIABLES[:3], ("host:1234", "4", "3"), strict=True):
        monkeypatch.setenv(variable, value)
    processes.join()
    assert joined[0].items() >= {"num_processes": 4, "process_id": 3}.items()
    monkeypatch.setenv("JAX_PROCESS_ID", "three")
    with pytest.raises(UserError, match="JAX_PROCESS_ID: three: give a whole number"):
        processes.join()


@pytest.mark.usefixtures("joined")
def test_what_jax_says_of_others_that_it_cannot_join_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise ValueError("Number of processes must be defined.\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
    with pytest.raises(UserError, match=r"host:1234: Number of processes must be defined\. Set JAX_NUM_PROCESSES"):
        processes.join()


@pytest.mark.usefixtures("joined")
def test_a_long_wait_for_the_others_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def wait(**_: Any) -> None:
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
            said.extend(filter(None, [capsys.readouterr().err]))

    monkeypatch.setattr(processes, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(jax.distributed, "initialize", wait)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
    processes.join()
    assert said == ["waiting for the other processes (JAX_COORDINATOR_ADDRESS=host:1234)\n"]


class Others:
    """Two processes played by one: `play` runs as either, and what the first sends is what the second gets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.index, self.received = 0, 0
        self.sent: list[np.ndarray] = []
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda: self.index)
        monkeypatch.setattr(multihost, "get_barrier_sync_fn", lambda: lambda key, timeout_ms: None)
        monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", self.broadcast)

    def broadcast(self, value: np.ndarray) -> np.ndarray:
        if self.index == 0:
            self.sent.append(value)
            return value
        sent = self.sent.pop(0)
        assert sent.shape == value.shape
        return sent


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Others:
    return Others(monkeypatch)


def test_all_have_what_the_first_alone_worked_out(others: Others) -> None:
    value: dict[str, object] = {"text": "größer", "numbers": [1, 2.5, None]}
    calls = []

    def work() -> dict[str, object]:
        calls.append(others.index)
        return value

    for others.index in (0, 1):
        assert processes.on_primary(work) == json.loads(json.dumps(value))
    assert calls == [0]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UserError("config.seed", -1, "give another"), "config.seed: -1: give another"),
        (OSError(28, "No space left on device", "/full"), "No space left on device: '/full'"),
    ],
)
def test_all_fail_as_the_first_does(others: Others, error: Exception, says: str) -> None:
    for others.index in (0, 1):
        with pytest.raises(type(error), match=says):
            processes.on_primary(lambda: (_ for _ in ()).throw(error))


def test_a_failure_of_another_kind_ends_the_others_too(others: Others) -> None:
    for others.index, kind in enumerate((ZeroDivisionError, RuntimeError)):
        with pytest.raises(kind, match="division by zero"):
            processes.on_primary(lambda: 1 / 0)


def test_a_line_is_printed_once(others: Others, capsys: pytest.CaptureFixture[str]) -> None:
    for others.index in (0, 1):
        processes.print_primary("said")
        processes.log_primary("noted")
    assert capsys.readouterr() == ("said\n", "noted\n")


def test_a_file_that_one_process_does_not_see_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.check_shared("workdir", os.devnull)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda seen: np.array([seen, False]))
    with pytest.raises(UserError, match=f"workdir: {os.devnull}: is not seen by process 1"):
        processes.check_shared("workdir", os.devnull)
