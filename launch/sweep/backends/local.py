"""The local backend: worker processes on this machine, each of which runs points one after another."""

import concurrent.futures
import contextlib
import datetime
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from etils import epath

from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import folder_lock, is_held
from coi_jax.common.storage import AppendFile
from launch.sweep.backends.point_queue import PointQueue
from launch.sweep.backends.protocol import LOG, Outcome, Settings, Status
from launch.sweep.checks import check_meshes
from launch.sweep.commands import evaluate_command, train_command
from launch.sweep.devices import device_shares, follower_name, is_alone
from launch.sweep.point_state import CONFIG, SWEEP_LOCK, claim, is_scored, is_trained, state
from launch.sweep.points import Point
from launch.sweep.worker_process import WorkerProcess

# A worker that ends by one of these was told to go; its run is whole and goes on when it is started again.
PREEMPTING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

RELEASE_SECONDS = 60  # that a run may take to save and end, whose sweep was killed
START_SECONDS = 600  # that the primary host may start later than the others


class LocalBackend:
    """Runs points in worker processes; once told to stop it passes that on and starts no other.

    Inside `with LocalBackend(settings) as backend:` the first Ctrl-C, SIGTERM or SIGHUP asks the running points to save
    and end, a second one ends them at once. A point also saves and ends where this process is killed. A signal that was
    ignored, as `nohup` ignores SIGHUP, stays ignored.

    Where several hosts run a point together, each is given the same command. The primary one does all of the above; the
    others follow it, and keep a log of their own.

    Raises:
      UserError: the devices cannot be divided among the workers, or a cluster is asked for.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.cluster is not None:
            hint = "is for a cluster, and --backend local runs the points on this machine; leave one of them out"
            raise UserError("--cluster", settings.cluster, hint)
        self.stopped = False
        self._settings = settings
        self._shares = device_shares(settings.workers)
        self._workers = [WorkerProcess(share) for share in self._shares]
        self._printing = threading.Lock()
        self._follower = follower_name()

    def __enter__(self) -> "LocalBackend":
        heeded = [number for number in PREEMPTING if signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._stop) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        again, self.stopped = self.stopped, True
        for worker in self._workers:
            worker.interrupt(signal.SIGKILL if again else signal.SIGTERM)
        if not again:
            with contextlib.suppress(OSError):  # the terminal may have gone
                print("stopping: the run is being saved; press Ctrl-C again to end it at once", file=sys.stderr)

    def run(self, points: Sequence[Point]) -> list[Outcome]:
        """Train and evaluate points, as far as that is not done yet and no other sweep is at them.

        Raises:
          UserError: the mesh of a point does not make the devices of a worker; no point is started then.
        """
        if is_alone(self._settings.workers):
            check_meshes(points, self._shares[0].devices)
        queue = PointQueue(points, self._settings.retries)
        with concurrent.futures.ThreadPoolExecutor(len(self._workers)) as threads:
            futures = [threads.submit(self._work, worker, queue) for worker in self._workers]
        for future in futures:
            future.result()
        return queue.outcomes

    def _work(self, worker: WorkerProcess, queue: PointQueue) -> None:
        """Run points of the queue until it is empty; a new process for each group of points, and after a failure."""
        before: Point | None = None
        try:
            while not self.stopped and (point := queue.take(like=before)) is not None:
                if before is not None and before.group != point.group:
                    worker.close()
                self._print(point, f"== {point.id}: {_intent(point)}; log in {self._log(point)}\n", is_heading=True)
                outcome = self._run(worker, point)
                if outcome.status == "failed":
                    worker.close()
                queue.end(outcome)
                before = point
        finally:
            worker.close()

    def _log(self, point: Point) -> epath.Path:
        return point.folder / (f"log-{self._follower}.txt" if self._follower else LOG)

    def _run(self, worker: WorkerProcess, point: Point) -> Outcome:
        if self._follower:
            return self._follow(worker, point)
        claim(point)
        try:
            with folder_lock(point.folder, "--out", SWEEP_LOCK):
                _await_release(point)
                return self._run_locked(worker, point)
        except UserError as error:
            return Outcome(point, "failed", str(error))

    def _follow(self, worker: WorkerProcess, point: Point) -> Outcome:
        """Run a point with the primary host, which begins it and holds its lock."""
        deadline = time.monotonic() + START_SECONDS
        while not (point.folder / CONFIG).exists():
            if self.stopped or time.monotonic() > deadline:
                return Outcome(point, "failed", f"the primary host has not begun it in {point.folder}, which all share")
            time.sleep(0.1)
        return self._run_locked(worker, point)

    def _run_locked(self, worker: WorkerProcess, point: Point) -> Outcome:
        for name, is_complete, command in (
            ("train", is_trained, train_command(point)),
            ("evaluate", is_scored, evaluate_command(point)),
        ):
            if is_complete(point):
                continue
            if self.stopped:
                return Outcome(point, "preempted", f"stopped before {name}")
            status = self._call(worker, command, point)
            # The primary host may still be closing the files that a follower would look for.
            if status != 0 or self.stopped or not (self._follower or is_complete(point)):
                return Outcome(point, *self._explain(name, status, point))
        return Outcome(point, "done", "")

    def _explain(self, name: str, status: int, point: Point) -> tuple[Status, str]:
        if self.stopped or -status in PREEMPTING or status - 128 in PREEMPTING:
            return "preempted", f"{name} was stopped"
        if status == 0:
            return "preempted", f"{name} ended before it was through"
        if status < 0:
            hint = "; was there too little memory?" if -status == signal.SIGKILL else ""
            return "failed", f"{name} was ended by {signal.Signals(-status).name}{hint}"
        return "failed", f"{name} exited with status {status}: {_last_line(self._log(point))}"

    def _call(self, worker: WorkerProcess, command: Sequence[str], point: Point) -> int:
        """Run a command, whose output goes to the point's log and to the terminal; return its exit status."""
        with AppendFile(self._log(point)) as file:
            now = datetime.datetime.now().isoformat(" ", "seconds")
            file.write(f"\n# {now} {shlex.join(['python', '-m', *command])}\n")

            def write(line: str) -> None:
                file.write(line)
                self._print(point, line)

            return worker.run(command, write)

    def _print(self, point: Point, line: str, *, is_heading: bool = False) -> None:
        """Print a line, after the id of its point where several run at the same time."""
        prefix = f"[{point.id}] " if len(self._workers) > 1 and not is_heading else ""
        with self._printing, contextlib.suppress(OSError) if self.stopped else contextlib.nullcontext():
            print(f"{prefix}{line}", end="" if line.endswith("\n") else "\n", flush=True)


def _intent(point: Point) -> str:
    return "starting" if state(point) == "new" else "resuming"


def _await_release(point: Point) -> None:
    """Wait for the commands of a sweep that was killed, which save and end."""
    folders = [point.folder, *(point.folder / "eval" / test for test in point.config.evaluation.tests)]
    deadline = time.monotonic() + RELEASE_SECONDS
    while any(map(is_held, folders)) and time.monotonic() < deadline:
        time.sleep(0.1)


def _last_line(log: epath.Path) -> str:
    lines = [line for line in log.read_bytes().decode("utf-8", "replace").split("\n") if line.strip()]
    return f"{lines[-1].strip()} (all of it in {log})"
