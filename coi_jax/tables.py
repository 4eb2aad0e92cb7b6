"""Write tables and figures of the paper from run records, beside the paper's own numbers.

  python -m coi_jax.tables --runs runs/quickstart --table 2 3 4 --figure 6 --out runs/quickstart/report
  python -m coi_jax.tables --runs runs --all --out report

With --all every table and figure is written that the runs have results for, and the others are named.
"""

import logging
import sys
from collections.abc import Mapping, Sequence

from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path, check_not_kept
from coi_jax.reporting.registry import FIGURES, TABLES, Report
from coi_jax.reporting.run_records import Records, read


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--runs", required=True, nargs="+", metavar="DIR", help="run folders, or folders of them")
    parser.add_argument("--table", nargs="+", default=[], choices=list(TABLES), help=_titles(TABLES))
    parser.add_argument("--figure", nargs="+", default=[], choices=list(FIGURES), help=_titles(FIGURES))
    parser.add_argument("--all", action="store_true", help="every table and figure that the runs have results for")
    parser.add_argument(
        "--price",
        type=cli.positive_float,
        metavar="USD",
        help="of a device, or of a core of a CPU, for an hour: the JSON files tell the cost of each cell",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where the files go")
    arguments = parser.parse_args(argv)
    if not (arguments.table or arguments.figure or arguments.all):
        parser.error("name a --table or a --figure, or both, or --all")
    # Matplotlib keeps its fonts in the home folder, and complains at length where that cannot be written.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    records = read(arguments.runs, arguments.price)
    check_replaceable(arguments.out)
    chosen = {f"table {name}": TABLES[name] for name in (TABLES if arguments.all else arguments.table)}
    chosen |= {f"figure {name}": FIGURES[name] for name in (FIGURES if arguments.all else arguments.figure)}
    written, faults = write_reports(chosen, records, arguments.out)
    if len(faults) == len(chosen):
        raise next(iter(faults.values()))
    for name, fault in faults.items():
        print(f"{name} left out: {fault}", file=sys.stderr)
    print(f"written into {arguments.out}: {', '.join(written)}")
    return cli.EXIT_USER_ERROR if faults and not arguments.all else 0


def write_reports(
    chosen: Mapping[str, Report], records: Records, out: PathLike
) -> tuple[list[str], dict[str, UserError]]:
    """Write some tables and figures; return the files' names, and why others could not be made.

    Args:
      chosen: by their names.
      records: the runs.
      out: the folder.
    """
    written, faults = list[str](), dict[str, UserError]()
    for name, report in chosen.items():
        try:
            written += report.write(records, out)
        except UserError as error:
            faults[name] = error
    return written, faults


def check_replaceable(out: PathLike) -> None:
    """Raise UserError where a file that would be replaced was not written by this command, by what its JSON holds."""
    folder = as_path(out, "--out")
    check_not_kept(folder, "--out")
    for name in (*(_file_name("table", key) for key in TABLES), *(_file_name("figure", key) for key in FIGURES)):
        written = [
            path for kind in ("md", "tex", "csv", "png", "svg", "pdf") if (path := folder / f"{name}.{kind}").exists()
        ]
        source = folder / f"{name}.json"
        value = files.read_json(source, "--out") if source.exists() else {}
        if (written or source.exists()) and not (isinstance(value, dict) and "cells" in value):
            raise UserError("--out", [source, *written][-1], "was not written by this command; name another folder")


def _file_name(kind: str, key: str) -> str:
    return f"{kind}{key}" if key.isdigit() else f"{kind}_{key}"


def _titles(reports: Mapping[str, Report]) -> str:
    return "; ".join(f"{number}: {report.title}" for number, report in reports.items())


def command() -> int:
    """Run the command `coi-tables`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
