"""The registry of the paper's tables and figures, each written by a module of this package.

To add one, write its module with a function `write(records, folder)` and add an entry here.
"""

from dataclasses import dataclass
from types import ModuleType

from etils import epy

from coi_jax.common import files
from coi_jax.reporting.run_records import Records

with epy.lazy_imports():  # on first use: the command's help needs no Matplotlib
    from coi_jax.reporting import figure6, table4


@dataclass(frozen=True)
class Report:
    """A table or figure.

    Attributes:
      title: what it shows, in the help of the command.
      module: has a function `write`, which writes the files into a folder and returns their names.
    """

    title: str
    module: ModuleType

    def write(self, records: Records, folder: files.PathLike) -> list[str]:
        """Write the files into a folder and return their names."""
        names: list[str] = self.module.write(records, folder)
        return names


# By their numbers in the paper.
TABLES = {"4": Report("arms by test sets", table4)}
FIGURES = {"6": Report("scores by chain length", figure6)}
