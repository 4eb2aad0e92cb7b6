"""Preflight of a sweep: whether the points that are left fit a TPU slice, and the hours and dollars of their training.

Each is compiled by `python -m launch.preflight` in a process of its own, once for all points that differ in the seed
alone.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from coi_jax.common import child_processes, cli
from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import parse_json
from coi_jax.common.wording import count_of
from coi_jax.config.run import LoggingConfig, RunConfig
from launch.preflight.text_report import span
from launch.preflight.topologies import GIB
from launch.sweep.points import Point

HEADER = ("id", "fits", "GiB a chip", "hours", "USD")


@dataclass(frozen=True)
class Request:
    """What the command line asks of preflight.

    Attributes:
      topology: that each point runs on.
      price: of a chip for an hour, in US dollars; None tells no cost.
      budget: the most that the points may cost together; None: anything.
    """

    topology: str
    price: float | None
    budget: float | None

    def __post_init__(self) -> None:
        if self.budget is not None and self.price is None:
            raise UserError("--budget", self.budget, "needs --price USD, of a chip for an hour")


def forecast(points: Sequence[Point], request: Request) -> None:
    """Print what preflight says of each point that is trained.

    Raises:
      UserError: a point does not fit as it is configured, or together they may cost more than the budget.
    """
    results: dict[RunConfig, dict[str, Any]] = {}
    rows, found = [], []
    for point in points:
        if point.is_tuned:
            key = point.config.model_copy(update={"seed": 0, "logging": LoggingConfig()})
            results[key] = results.get(key) or _preflight(point, request)
            found.append((point, results[key]))
            rows.append((point.id, *cells(results[key])))
    print(tabulate(rows, HEADER, tablefmt="plain", disable_numparse=True), flush=True)
    for point, result in found:
        _check_fits(point, result, request)
    _check_budget(found, request)


def _preflight(point: Point, request: Request) -> dict[str, Any]:
    """Return what `launch.preflight` says of a point; its progress goes to standard error."""
    command = ["--config", point.base, *cli.override_flags(point.overrides), "--topology", request.topology]
    command += ["--train_only", "--json", *(["--price", str(request.price)] if request.price is not None else [])]
    print(f"preflight of {point.id}", file=sys.stderr, flush=True)
    environment = child_processes.without_secrets(os.environ, child_processes.STORES)
    command = [sys.executable, "-m", "launch.preflight", *command]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    if not done.stdout:
        last = done.stderr.decode("utf-8", "replace").strip().split("\n")[-1] or f"status {done.returncode}"
        raise UserError("--preflight", request.topology, f"point {point.id}: {last.removeprefix('error: ')}")
    result: dict[str, Any] = parse_json(done.stdout)
    return result


def cells(result: dict[str, Any]) -> tuple[str, ...]:
    """Return what a result of preflight says in the columns of the table."""
    fits = "yes" if result["fits_as_configured"] else f"with {result['flags']}" if result["fits"] else "no"
    memory = result["attempts"][-1]["memory"]["total"] / GIB
    run = result.get("run") or {}
    return (fits, f"{memory:.1f}", *(span(run[name], ",.2f") if run.get(name) else "" for name in ("hours", "usd")))


def _check_fits(point: Point, result: dict[str, Any], request: Request) -> None:
    if not result["fits_as_configured"]:
        hint = f"add {result['flags']}" if result["fits"] else "take more chips, shorter rows or adapters (lora)"
        raise UserError("--preflight", request.topology, f"point {point.id} does not fit as configured; {hint}")


def _check_budget(found: Sequence[tuple[Point, dict[str, Any]]], request: Request) -> None:
    """Print what the points cost together; raise UserError where that may be more than the budget."""
    if request.price is None:
        return
    for point, result in found:
        if result["run"]["usd"] is None:
            hint = (
                f"the steps of {point.id} are not known: write its token caches (python -m data_pipeline.cache) first"
            )
            raise UserError("--price", request.price, hint)
    total = [sum(result["run"]["usd"][bound] for _, result in found) for bound in (0, 1)]
    cost = f"{span(total, ',.2f')} USD by the roofline, without evaluation"
    print(f"training of {count_of(len(found), 'point')}: {cost}", flush=True)
    if request.budget is not None and total[1] > request.budget:
        hint = f"the points that are left may cost {total[1]:,.2f}; give that much, or choose fewer by --only"
        raise UserError("--budget", request.budget, hint)
