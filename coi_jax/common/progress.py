"""Progress bars with an ETA, on standard error; one line per interval where that is not a terminal."""

import contextlib
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
    TimeRemainingColumn,
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
        self._began_at, self._began_with = time.monotonic(), done
        self._printed_at = self._began_at
        self._rich = self._make_rich() if sys.stderr.isatty() and not _hidden else None

    def _make_rich(self) -> Progress:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        progress = Progress(*columns, console=Console(stderr=True))
        self._task = progress.add_task(self._description, total=self._total, completed=self._done, note="")
        return progress

    def __enter__(self) -> "Bar":
        if self._rich:
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich:
            self._rich.stop()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more items as done; `note` is shown at the end of the bar."""
        self._done += count
        if self._rich:
            self._rich.update(self._task, completed=self._done, note=note)
        elif not _hidden and time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._printed_at = time.monotonic()
            with contextlib.suppress(OSError):  # whoever read the lines has gone; the work goes on
                print(self._line(note), file=sys.stderr, flush=True)

    def _line(self, note: str) -> str:
        speed = (self._done - self._began_with) / (time.monotonic() - self._began_at)
        if not self._total:
            return f"{self._description}: {self._done} {note}".rstrip()
        eta = f"ETA {(self._total - self._done) / speed:.0f} s" if speed else "ETA unknown"
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
