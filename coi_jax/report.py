"""Write one HTML page about some runs: curves, tables, settings, and every answer step by step beside its reference.

Example: python -m coi_jax.report --runs runs/quickstart --out runs/quickstart/report.html
"""

import sys
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.common.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--runs", required=True, nargs="+", metavar="DIR", help="run folders, or folders of them")
    parser.add_argument("--out", metavar="FILE", help="the page; report.html in the first of --runs without it")
    arguments = parser.parse_args(argv)
    # Imported once the command line is right, so that --help and mistakes need little.
    from coi_jax.common import files
    from coi_jax.common.storage import as_path, is_file, is_there, read_range
    from coi_jax.reporting import run_report
    from coi_jax.reporting.run_records import read

    records = read(arguments.runs)
    out = as_path(f"{arguments.runs[0]}/report.html" if arguments.out is None else arguments.out, "--out")
    if is_there(out) and (not is_file(out) or run_report.MARK.encode() not in read_range(out, 0, 200)):
        raise UserError("--out", out, "was not written by this command; name another file")
    data = run_report.content(records)
    for fault in data["faults"]:
        print(f"left out: {fault}", file=sys.stderr)
    files.write_text(out, run_report.render(data))
    print(f"written: {out}; open it in a browser")
    return 0


def command() -> int:
    """Run the command `coi-report`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
