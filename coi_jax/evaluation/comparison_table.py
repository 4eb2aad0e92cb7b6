"""A comparison of two runs as a table in the terminal."""

from collections.abc import Sequence

from rich.table import Table

from coi_jax.common import terminal
from coi_jax.common.storage import PathLike
from coi_jax.evaluation.comparison import Comparison

HEADINGS = (
    "test set",
    "score x 100",
    "examples",
    "A",
    "B",
    "A - B\n[95% interval]",
    "resamples\nA - B ≤ 0",
    "examples A\nbetter / worse / equal",
)


def show(comparisons: Sequence[Comparison], a: Sequence[PathLike], b: Sequence[PathLike]) -> None:
    """Print a row for each score of each test set.

    Args:
      comparisons: of the two sides.
      a: the run folders of side A.
      b: of side B.
    """
    console = terminal.console()
    for side, runs in (("A", a), ("B", b)):
        console.print(f"{side}: {', '.join(map(str, runs))}", markup=False)
    table = Table()
    for place, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if place < 2 else "right")
    for comparison in comparisons:
        table.add_row(*_cells(comparison))
    console.print(table)
    left_out = {each.task: each.left_out for each in comparisons if each.left_out}
    for task, count in left_out.items():
        console.print(f"{task}: {count} examples are left out, which not all runs have answered or scored")


def _cells(comparison: Comparison) -> list[str]:
    found = comparison.found
    return [
        comparison.task,
        comparison.score,
        str(comparison.examples),
        f"{found.a:.1f}",
        f"{found.b:.1f}",
        f"{found.difference:+.1f} [{found.low:+.1f}, {found.high:+.1f}]",
        f"{found.share_not_above_zero:.3f}",
        " / ".join(f"{100 * share:.0f}%" for share in (found.better, found.worse, found.equal)),
    ]
