"""Run every point of a sweep: train and score it in a run folder of its own.

Points that are done are skipped, interrupted ones are resumed: run the same command again after an interruption.
Example: python -m launch.sweep --sweep configs/sweeps/quickstart.py --backend local
Every point can be changed alike: --config.train.length.count=100
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import folder_lock
from coi_jax.common.wording import count_of
from launch.sweep import status
from launch.sweep.backends.protocol import Backend, Outcome, Settings
from launch.sweep.backends.registry import BACKENDS
from launch.sweep.checks import check_points
from launch.sweep.devices import follower_name
from launch.sweep.forecast import Request, forecast
from launch.sweep.point_state import SWEEP_LOCK, check_writable, config_fault, state
from launch.sweep.points import Point, choose, expand

EXIT_FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 where every point is done, 1 where one failed, 130 where one was stopped."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(rest)
    points = choose(expand(arguments.sweep, overrides, arguments.out), arguments.only)
    if arguments.status or arguments.watch:
        if arguments.dry_run:
            flag = "--watch" if arguments.watch else "--status"
            hint = "tells how far a sweep is, and --dry_run what it would run; leave one of them out"
            raise UserError(flag, arguments.watch or arguments.status, hint)
        show_status(points, arguments.watch)
        return 0
    request = _preflight_request(arguments)
    backend = BACKENDS[arguments.backend](_settings(arguments, overrides))
    if arguments.dry_run:
        print(listing(points))
        if request is None:
            return 0
    check_points(points)
    if request is not None:
        forecast([point for point in points if state(point) != "done"], request)
    if arguments.dry_run:
        return 0
    folder = points[0].folder.parent
    is_follower = bool(follower_name())  # of the host that has the folder
    if not is_follower:
        check_writable(folder)
    # One sweep has the folder; several may share out its points by --only, as the tasks of a cluster do.
    is_shared = bool(arguments.only) or is_follower
    with backend, contextlib.nullcontext() if is_shared else folder_lock(folder, "--out", SWEEP_LOCK):
        return run_points(points, backend)


def _preflight_request(arguments: argparse.Namespace) -> Request | None:
    """Return what is asked of preflight; None where it is not asked for."""
    if arguments.preflight is not None:
        return Request(arguments.preflight, arguments.price, arguments.budget)
    for flag, value in (("--price", arguments.price), ("--budget", arguments.budget)):
        if value is not None:
            raise UserError(flag, value, "needs --preflight TOPOLOGY, as v5e-16")
    return None


def _settings(arguments: argparse.Namespace, overrides: Mapping[str, Any]) -> Settings:
    """Return what the backend is told: the command line's, with that of the same sweep on another machine."""
    out = ["--out", arguments.out] if arguments.out else []
    same_sweep = ("--sweep", arguments.sweep, *out, *cli.override_flags(overrides))
    return Settings(arguments.workers, arguments.retries or 0, arguments.cluster, same_sweep)


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--sweep", required=True, metavar="FILE", help="a file of configs/sweeps/")
    parser.add_argument("--backend", required=True, choices=list(BACKENDS), help="where the points run")
    parser.add_argument("--out", metavar="DIR", help="holds the run folders; without it runs/<name of the sweep file>")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="ids, or beginnings of ids, to run")
    parser.add_argument(
        "--workers", type=cli.positive_int, default=1, help="points that run at the same time; they share the devices"
    )
    parser.add_argument("--retries", type=cli.positive_int, metavar="N", help="how often a failed point is run again")
    parser.add_argument("--cluster", metavar="FILE", help="what to ask a cluster for; see configs/clusters")
    parser.add_argument("--dry_run", action="store_true", help="list the points and their state, and run none")
    parser.add_argument(
        "--preflight",
        metavar="TOPOLOGY",
        help="compile each point for a TPU slice first, as v5e-16; where one does not fit, run none",
    )
    parser.add_argument(
        "--price", type=cli.positive_float, metavar="USD", help="of a chip for an hour, for --preflight"
    )
    parser.add_argument(
        "--budget", type=cli.positive_float, metavar="USD", help="run nothing where training may cost more"
    )
    parser.add_argument("--status", action="store_true", help="print how far each point is, and run none")
    parser.add_argument(
        "--watch", type=cli.positive_float, metavar="SECONDS", help="the same, so often until all are done"
    )
    return parser


def show_status(points: Sequence[Point], every: float | None) -> None:
    """Print a line for each point; again and again until all are done, where `every` gives the seconds between."""
    while True:
        rows = [status.status_row(point) for point in points]
        if every and sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")  # from the top of an empty terminal
        print(tabulate(rows, status.HEADER, tablefmt="plain", disable_numparse=True))
        print(status.counts(points), flush=True)
        if not every or all(state(point) == "done" for point in points):
            return
        time.sleep(every)


def listing(points: Sequence[Point]) -> str:
    """Return the points as lines of aligned columns."""
    rows = [
        (point.id, state(point), str(point.folder), " ".join(cli.override_flags(point.overrides))) for point in points
    ]
    return tabulate(rows, ("id", "state", "folder", "overrides"), tablefmt="plain", disable_numparse=True)


def run_points(points: Sequence[Point], backend: Backend) -> int:
    """Run the points that are not done, by a backend that was entered; one that fails does not stop the others."""
    done = [point for point in points if state(point) == "done"]
    for point in done:
        print(f"== {point.id}: done already, skipped", flush=True)
    damaged = [Outcome(point, "failed", str(fault)) for point in points if (fault := config_fault(point))]
    missing = [point for point in points if state(point) in ("new", "partial")]
    outcomes = backend.run(missing) if missing else []
    return report(points, [*(Outcome(point, "done", "") for point in done), *damaged, *outcomes])


def report(points: Sequence[Point], outcomes: Sequence[Outcome]) -> int:
    """Print which points are not done, and return the exit status."""
    unfinished = [outcome for outcome in outcomes if outcome.status not in ("done", "submitted")]
    submitted = [outcome for outcome in outcomes if outcome.status == "submitted"]
    done = len(outcomes) - len(unfinished) - len(submitted)
    print(f"{done} of {count_of(len(points), 'point')} done" + (":" if unfinished else ""), flush=True)
    for outcome in unfinished:
        print(f"  {outcome.status}: {outcome.point.id}: {outcome.reason}", flush=True)
    if any(outcome.status == "failed" for outcome in unfinished):
        return EXIT_FAILED
    if submitted:
        print(
            f"{len(submitted)} submitted; the same command with --status or --watch shows how far they are", flush=True
        )
    elif done < len(points):
        print("run the same command again to go on", flush=True)
        return cli.EXIT_INTERRUPTED
    return 0


def command() -> int:
    """Run the command `coi-sweep`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
