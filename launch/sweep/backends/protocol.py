"""The contract of a backend: it runs the points of a sweep and says how each ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

from launch.sweep.points import Point

Status = Literal["done", "failed", "preempted", "submitted"]

LOG = "log.txt"  # the output of a point's commands, in its run folder


@dataclass(frozen=True)
class Settings:
    """What the command line says to a backend.

    Attributes:
      workers: points that run at the same time.
      retries: how often a point that failed is run again.
      cluster: the file that says what machines to ask a cluster for; None where none was named.
      arguments: of the command line that name this sweep, its folder and the overrides of all points.
    """

    workers: int = 1
    retries: int = 0
    cluster: str | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The end of a point.

    Attributes:
      point: the one that was run.
      status: whether it is done, failed, was stopped and goes on when it is run again, or runs on a cluster.
      reason: why it is not done, in words; empty where it is.
    """

    point: Point
    status: Status
    reason: str


class Backend(Protocol):
    """A place where points run. A context manager: `with backend:`; an interruption inside it stops what is running.

    It is made from `Settings`, which it checks then, for a dry run too. What this machine lacks is checked as it is
    entered: a dry run may be on another one.

    Attributes:
      stopped: whether it was told to stop; it starts no other point then.
    """

    stopped: bool

    def __enter__(self) -> "Backend":
        """Take over interruptions."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give interruptions back."""
        ...

    def run(self, points: Sequence[Point]) -> list[Outcome]:
        """Train and evaluate points, as far as that is not done yet; one that fails does not stop the others."""
        ...
