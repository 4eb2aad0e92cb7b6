"""The registry of the paper's tables and figures, each written by a module of this package.

To add one, write its module with a function `write(records, folder)` and add an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from coi_jax.common import files
from coi_jax.reporting import figure6, table4
from coi_jax.reporting.run_records import Records


@dataclass(frozen=True)
class Report:
    """A table or figure.

    Attributes:
      title: what it shows, in the help of the command.
      write: writes its files into a folder and returns their names.
    """

    title: str
    write: Callable[[Records, files.PathLike], list[str]]


# By their numbers in the paper.
TABLES = {"4": Report("arms by test sets", table4.write)}
FIGURES = {"6": Report("scores by chain length", figure6.write)}
