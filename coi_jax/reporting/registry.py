"""The registry of the paper's tables and figures, each written by a module of this package.

To add one, write its module with a function `write(records, folder)` and add an entry here.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from etils import epy

from coi_jax.common.storage import PathLike
from coi_jax.reporting.run_records import Records, check_consistent

with epy.lazy_imports():  # on first use: the command's help needs no Matplotlib
    from coi_jax.reporting import figure6, figure_preference, figure_sweep, table2, table3, table4, table6, table_bbh


@runtime_checkable
class ReportModule(Protocol):
    """A module that writes a table or figure."""

    def write(self, records: Records, folder: PathLike) -> list[str]:
        """Write the files into a folder and return their names."""
        ...


@dataclass(frozen=True)
class Report:
    """A table or figure.

    Attributes:
      title: what it shows, in the help of the command.
      module: has a function `write`, which writes the files into a folder and returns their names.
      is_by_arm: whether runs of one arm may differ in their seed alone.
    """

    title: str
    module: ReportModule
    is_by_arm: bool = True

    def write(self, records: Records, folder: PathLike) -> list[str]:
        """Write the files into a folder and return their names.

        Args:
          records: the runs, not checked yet.
          folder: that the files go to.

        Raises:
          UserError: the runs contradict one another, or there is nothing to show.
        """
        return self.module.write(check_consistent(records) if self.is_by_arm else records, folder)


# By their numbers in the paper.
TABLES = {
    "2": Report("chains by length", table2),
    "3": Report("steps of a chain", table3),
    "4": Report("arms by test sets", table4),
    "6": Report("summaries and their translations", table6),
    "bbh": Report("BIG-Bench Hard by task", table_bbh),
}
FIGURES = {
    "6": Report("scores by chain length", figure6),
    "preference": Report("preferences of judges between pairs of runs", figure_preference, is_by_arm=False),
    "sweep": Report("scores against the settings of a sweep", figure_sweep, is_by_arm=False),
}
