"""The points that are to be run, handed to workers."""

import threading
from collections import Counter
from collections.abc import Sequence

from launch.sweep.backends.protocol import Outcome
from launch.sweep.points import Point


class PointQueue:
    """Hands each point to one worker at a time, and a failed one again, as often as it may fail.

    Args:
      points: in the order in which they are begun.
      retries: how often a point that failed is run again.
    """

    def __init__(self, points: Sequence[Point], retries: int) -> None:
        self._waiting, self._retries = list(points), retries
        self._order = [point.id for point in points]
        self._failures: Counter[str] = Counter()
        self._outcomes: dict[str, Outcome] = {}
        self._lock = threading.Lock()

    def take(self, like: Point | None) -> Point | None:
        """Return the next point, and None where none is left; the first of the group of `like`, if there is one."""
        with self._lock:
            if not self._waiting:
                return None
            same = (place for place, point in enumerate(self._waiting) if like and point.group == like.group)
            return self._waiting.pop(next(same, 0))

    def end(self, outcome: Outcome) -> None:
        """Note how a point ended; one that failed waits again unless it has failed too often."""
        with self._lock:
            self._outcomes[outcome.point.id] = outcome
            if outcome.status == "failed":
                self._failures[outcome.point.id] += 1
                if self._failures[outcome.point.id] <= self._retries:
                    self._waiting.append(outcome.point)

    @property
    def outcomes(self) -> list[Outcome]:
        """Return the last outcome of every point that has one, in the order of the points."""
        return [self._outcomes[id] for id in self._order if id in self._outcomes]
