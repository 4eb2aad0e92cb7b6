"""Progress bars with an ETA, on standard error; one line per interval where that is not a terminal."""

import contextlib
import datetime
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 15.0
_hidden = False


def hide() -> None:
    """Show no bars in this process from now on: another one, which does the same work, shows them."""
    global _hidden
    _hidden = True


class Bar:
    """One bar: `with Bar("training", total=100) as bar: bar.advance(1, note="loss 2.31")`."""

    def __init__(self, description: str, total: int | None, done: int = 0) -> None:
        self._description, self._total, self._done = description, total, done
        self._advanced_at = self._printed_at = time.monotonic()
        self._typical_items, self._typical_seconds = 0, 0.0
        self._rich = self._make_rich() if sys.stderr.isatty() and not _hidden else None

    def _make_rich(self) -> Progress:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TextColumn("{task.fields[eta]}"),
            TextColumn("{task.fields[note]}"),
        )
        progress = Progress(*columns, console=Console(stderr=True))
        clock = self._clock()
        self._task = progress.add_task(self._description, total=self._total, completed=self._done, note="", eta=clock)
        return progress

    def __enter__(self) -> "Bar":
        if self._rich:
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich:
            self._rich.stop()

    def advance(self, count: int = 1, note: str = "", *, is_typical: bool = True) -> None:
        """Count more items as done.

        Args:
          count: of the items.
          note: is shown at the end of the bar.
          is_typical: whether the others will take as long: not so for those that waited for a compilation.
        """
        now = time.monotonic()
        self._done += count
        if is_typical:
            self._typical_items += count
            self._typical_seconds += now - self._advanced_at
        self._advanced_at = now
        if self._rich:
            self._rich.update(self._task, completed=self._done, note=note, eta=self._clock())
        elif not _hidden and now - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._printed_at = now
            with contextlib.suppress(OSError):  # whoever read the lines has gone; the work goes on
                print(self._line(note), file=sys.stderr, flush=True)

    @property
    def seconds_left(self) -> float | None:
        """Return the time that the rest takes at the speed of the typical items; None where it is not known yet."""
        if not self._total or not self._typical_items:
            return None
        return (self._total - self._done) * self._typical_seconds / self._typical_items

    def _clock(self) -> str:
        """Return the time that is left as hours, minutes and seconds."""
        seconds = self.seconds_left
        return "-:--:--" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))

    def _line(self, note: str) -> str:
        if not self._total:
            return f"{self._description}: {self._done} {note}".rstrip()
        seconds = self.seconds_left
        eta = "ETA unknown" if seconds is None else f"ETA {seconds:.0f} s"
        return f"{self._description}: {self._done}/{self._total}, {eta} {note}".rstrip()


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` while a bar counts them.

    Args:
      items: to yield.
      description: what the bar says.
      total: how many items there are; None asks `items`, if it knows.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(description, total) as bar:
        for item in items:
            yield item
            bar.advance()
