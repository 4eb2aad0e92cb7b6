"""The cost of a result, from the records of its run: how long devices trained it and answered its test set.

Training is the time of its steps, without the compilation of the first one and without validation
(`metrics.jsonl`); answering is the time of generation, compilation included (`timing.jsonl`). On a CPU, cores are
counted in place of devices. The network of a prompted baseline was not trained for it. Where a file is damaged, the
cost is left out and the scores stand all the same; why is kept for the command to say.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from coi_jax.common.errors import UserError
from coi_jax.common.seals import read_sealed
from coi_jax.data.arms import Arm
from coi_jax.data.prompts import stages_of
from coi_jax.evaluation.timing import TIMING, read_timing
from coi_jax.runs.metrics_rows import read_metrics

Cost = dict[str, Any]
HOUR = 3600.0
CONVERTED = "converted_from"  # in the environment of a run that took no step
UNITS = ("device_seconds", "core_seconds")
MISREAD = (KeyError, TypeError, ValueError, ArithmeticError)  # of a row that is not as it was written


def read_cost(run: epath.Path, test_set: str, arm: Arm, price: float | None, faults: list[UserError]) -> Cost:
    """Return what a result took: `training` and `evaluation`, each None where nothing is known, and dollars.

    Each has `seconds`, `device`, and `device_seconds`, or `core_seconds` on a CPU. `usd` is of both together; it is
    None without a price, and where a part of the cost is not known.

    Args:
      run: the run folder.
      test_set: its name.
      arm: of the run.
      price: of a device, or of a core of a CPU, for an hour, in US dollars; None: no cost is computed in dollars.
      faults: gets what is wrong with files that are there, and from which a cost cannot be read.
    """
    training = _training(run, faults) if arm.is_tuned else None
    evaluation = _evaluation(run / "eval" / test_set, arm, faults)
    parts = [evaluation, *([training] if arm.is_tuned else [])]
    return {"training": training, "evaluation": evaluation, "usd": None if price is None else dollars(parts, price)}


def dollars(parts: Sequence[Cost | None], price: float) -> float | None:
    """Return the price of some parts of a cost; None where one of them is not known.

    Args:
      parts: of a cost.
      price: of a device or core for an hour.
    """
    seconds = [part[unit] for part in parts if part for unit in UNITS if unit in part]
    is_known = None not in parts and None not in seconds
    return price * sum(seconds) / HOUR if is_known else None


def _training(run: epath.Path, faults: list[UserError]) -> Cost | None:
    metrics, path = run / "metrics.jsonl", run / "environment.json"
    if not (metrics.exists() or path.exists()):
        return None
    with _noting(faults, "environment", path):
        environment = read_sealed(path, "environment")
        if CONVERTED in environment:
            return None
        devices = dict(environment["devices"])
        machine = {**devices, "devices": int(devices["count"]), "cores": environment.get("cores")}
        with _noting(faults, "metrics", metrics):
            seconds = step_seconds(read_metrics(metrics))
            return None if seconds is None else _count(seconds, machine)
    return None


@contextlib.contextmanager
def _noting(faults: list[UserError], field: str, path: epath.Path) -> Iterator[None]:
    """Add to some faults what is wrong with a file that the block reads, in place of raising it."""
    try:
        yield
    except UserError as fault:
        faults.append(fault)
    except MISREAD:
        faults.append(UserError(field, path, "has not the devices and the times that are written into it; restore it"))


def step_seconds(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the time of all steps by the rows of `metrics.jsonl`; None where no row has a time.

    A row has the mean time of the steps since the row before; steps without a time are taken to be as long as others.
    """
    seconds, timed, before, last = 0.0, 0, 0, 0
    for row in rows:
        last = row["step"]
        if isinstance(mean := row.get("seconds_per_step"), int | float):
            seconds, timed, before = seconds + mean * (last - before), timed + last - before, last
    return seconds / timed * last if timed else None


def _evaluation(folder: epath.Path, arm: Arm, faults: list[UserError]) -> Cost | None:
    stages = [stage.name for stage in stages_of(arm.prompting)[:-1]]
    counted: list[Cost] = []
    for path in (folder / TIMING, *(folder / name / TIMING for name in stages)):
        before = len(faults)
        if path.exists():
            with _noting(faults, "timing", path):
                counted += [_count(float(row["seconds"]), row) for row in read_timing(path)]
        if len(faults) > before:
            return None
    return _sum(counted) if counted else None


def _count(seconds: float, machine: Mapping[str, Any]) -> Cost:
    """Return the seconds of a machine, and those of all its devices, or of its cores where it has no accelerator."""
    is_cpu = machine["platform"] == "cpu"
    number = machine["cores"] if is_cpu else machine["devices"]
    total = None if number is None else seconds * int(number)
    device = f"{number or ''} CPU cores".strip() if is_cpu else f"{number} {machine['kind']}"
    return {"seconds": seconds, "device": device, "core_seconds" if is_cpu else "device_seconds": total}


def _sum(parts: list[Cost]) -> Cost:
    """Return some costs together; those of devices and those of cores stay apart."""
    total: Cost = {
        "seconds": sum(part["seconds"] for part in parts),
        "device": ", ".join(dict.fromkeys(part["device"] for part in parts)),
    }
    for unit in UNITS:
        values = [part[unit] for part in parts if unit in part]
        if values:
            total[unit] = None if None in values else sum(values)
    return total
