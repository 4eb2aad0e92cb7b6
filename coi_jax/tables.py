"""Tables and figures of the paper from run records, beside the paper's own numbers.

Example: python -m coi_jax.tables --runs runs/quickstart --table 4 --figure 6 --out runs/quickstart/report
"""

import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coi_jax.common import cli, files
from coi_jax.data.arms import ARMS
from coi_jax.reporting import figure6, paper
from coi_jax.reporting.run_records import PROVENANCE, Cell, Records, load

# The scores of table 4: the key in results.json, and the heading. The paper has the first only.
METRICS = {
    "rouge_l": "ROUGE-L of the whole text, labels counted (the paper's score)",
    "content_rouge_l": "ROUGE-L of the steps' content, labels taken off",
    "content_exact_match": "Whole chains exactly right, %",
    "well_formed": "Well-formed chains, %",
}
PAPERS_METRIC = "rouge_l"

Grid = list[list[str]]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--runs", required=True, nargs="+", metavar="DIR", help="run folders, or folders of them")
    parser.add_argument("--table", choices=["4"], help="4: arms by test sets")
    parser.add_argument("--figure", choices=["6"], help="6: scores by chain length")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the files go")
    arguments = parser.parse_args(argv)
    if not (arguments.table or arguments.figure):
        parser.error("name a --table or a --figure, or both")
    records = load(arguments.runs)
    out = Path(arguments.out)
    written = write_table4(records, out) if arguments.table else []
    if arguments.figure:
        written += write_figure6(records, out)
    print(f"written into {out}: {', '.join(written)}")
    return 0


def write_table4(records: Records, out: Path) -> list[str]:
    """Writes table 4 as Markdown, CSV and JSON, prints it, and returns the files' names."""
    print(brief(records))
    cells = table4_cells(records)
    files.write_text(out / "table4.md", markdown(records))
    files.write_text(out / "table4.csv", as_csv(cells))
    files.write_json(
        out / "table4.json",
        {"paper": paper.results()["source"], "cells": cells, "floor": floors(records), "missing": missing(records)},
    )
    return ["table4.md", "table4.csv", "table4.json"]


def write_figure6(records: Records, out: Path) -> list[str]:
    """Writes figure 6 as PNG and SVG, with the numbers behind it as JSON, and returns the files' names."""
    cells = [cell.to_dict() for cell in figure6.figure6_cells(records)]
    files.write_json(out / "figure6.json", {"cells": cells})
    return [*figure6.write_figure6(records, out), "figure6.json"]


def rows(records: Records) -> list[str]:
    """The arms of the table: all of the paper's where it has one of the test sets, else those that have a run."""
    return list(ARMS) if any(map(paper.has, records.test_sets)) else records.arms


def table4_cells(records: Records) -> list[dict[str, Any]]:
    """Every cell that has a number, with what it came from and the paper's values beside it."""
    cells = [
        records.cell(arm, test, metric) for metric in METRICS for arm in records.arms for test in records.test_sets
    ]
    return [cell.to_dict() | {"paper": papers_values(cell.arm, cell.test_set, cell.metric)} for cell in cells if cell]


def papers_values(arm: str, test_set: str, metric: str) -> dict[str, float]:
    """The paper's number for each of its models; empty where it has none."""
    if metric != PAPERS_METRIC or not paper.has(test_set):
        return {}
    return {model: paper.rouge_l(test_set, model, arm) for model in paper.models()}


def floors(records: Records) -> dict[str, dict[str, float | None]]:
    """The score of answers with nothing but labels, by test set and score."""
    return {test: {metric: records.floor(test, metric) for metric in METRICS} for test in records.test_sets}


def missing(records: Records) -> dict[str, list[str]]:
    """The test sets that an arm of the table has no result on, by arm."""
    scored = {(record.arm, record.test_set) for record in records.rows}
    gaps = {arm: [test for test in records.test_sets if (arm, test) not in scored] for arm in rows(records)}
    return {arm: tests for arm, tests in gaps.items() if tests}


def as_csv(cells: Sequence[dict[str, Any]]) -> str:
    """A line for each cell; runs of several seeds are joined with spaces."""
    models = list(paper.models())
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    plain = ["arm", "test_set", "metric", "n", "mean", "sd", "low", "high"]
    writer.writerow([*plain, *(f"paper_{model}" for model in models), *(f"from_{name}" for name in PROVENANCE)])
    for cell in cells:
        paths = [" ".join(dict.fromkeys(str(source[name]) for source in cell["sources"])) for name in PROVENANCE]
        writer.writerow([*(cell[name] for name in plain), *(cell["paper"].get(model) for model in models), *paths])
    return buffer.getvalue()


def markdown(records: Records) -> str:
    """The table as a page that can be read alone: a grid for each score, then notes."""
    parts = ["# Table 4: arms by test sets"]
    for metric, title in METRICS.items():
        parts += [f"## {title}", render_grid(grid(records, metric, show_interval))]
    return (
        "\n\n".join([*parts, "## Notes", "\n".join(f"- {note}" for note in notes(records)), provenance(records)]) + "\n"
    )


def brief(records: Records) -> str:
    """The table for a terminal: without intervals and sources, which the files have."""
    parts = [f"{title}\n\n{render_grid(grid(records, metric, show_mean))}" for metric, title in METRICS.items()]
    return "\n\n".join([*parts, "\n".join(notes(records)[1:])]) + "\n"


def grid(records: Records, metric: str, show: Callable[[Cell], str]) -> Grid:
    """One score: a header, a row for each arm, and the floor; the paper's columns stand beside ours."""
    columns = [(test, model) for test in records.test_sets for model in _columns(test, metric)]
    header = ["arm", *(f"{paper.models()[model]}, paper" if model else test for test, model in columns)]
    body = [[arm] for arm in rows(records)]
    for row in body:
        cells = [records.cell(row[0], test, metric) for test, model in columns]
        row += [
            f"{paper.rouge_l(test, model, row[0]):.1f}" if model else show(cell) if cell else ""
            for cell, (test, model) in zip(cells, columns, strict=True)
        ]
    floor = ["floor", *("" if model else _number(records.floor(test, metric)) for test, model in columns)]
    return [header, *body, floor]


def _columns(test: str, metric: str) -> list[str]:
    """Ours, then one for each of the paper's models where the test set is the paper's."""
    return ["", *paper.models()] if metric == PAPERS_METRIC and paper.has(test) else [""]


def show_interval(cell: Cell) -> str:
    """A cell as text: `70.8 [69.5, 72.0]` for one run, `70.8 ± 0.4 (n=3)` for several."""
    if cell.sd is not None:
        return show_mean(cell)
    low, high = cell.interval
    return f"{cell.mean:.1f} [{low:.1f}, {high:.1f}]"


def show_mean(cell: Cell) -> str:
    """A cell as text: `70.8` for one run, `70.8 ± 0.4 (n=3)` for several."""
    return f"{cell.mean:.1f}" + (f" ± {cell.sd:.1f} (n={len(cell.records)})" if cell.sd is not None else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def render_grid(cells: Grid) -> str:
    """A Markdown table with its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def notes(records: Records) -> list[str]:
    """What a reader must know to read the table rightly."""
    result = [
        "All scores x 100. Brackets: 95% bootstrap interval over examples, of one run. ±: sd over n seeds.",
        "floor: what an answer earns that has the labels and nothing else.",
    ]
    own = [test for test in records.test_sets if not paper.has(test)]
    if len(own) < len(records.test_sets):
        result.append(f"Columns marked paper are from {paper.results()['source']}; its models have 7B parameters.")
    if own:
        result.append(f"The paper has no numbers for {', '.join(own)}.")
    result += [f"No result yet: {arm} on {', '.join(tests)}." for arm, tests in missing(records).items()]
    result += [f"Not evaluated, though its config asks for it: {path}" for path in records.missing]
    if records.varying:
        result.append(f"The arms' configs differ besides in the arm: {', '.join(records.varying)}.")
    return result


def provenance(records: Records) -> str:
    """The runs behind the table, a row each; every cell's own hashes are in the JSON."""
    header = ["arm", "seed", "test set", "examples", "run", "checkpoint", "dataset", "test-set file"]
    body = [
        [
            record.arm,
            str(record.seed),
            record.test_set,
            str(record.examples),
            *(str(record.provenance[key])[:40] for key in ("run", "checkpoint")),
            *(str(record.provenance[key])[:12] for key in ("dataset", "test_set")),
        ]
        for record in records.rows
    ]
    return "## Where the numbers come from\n\n" + render_grid([header, *body])


def command() -> int:
    """Run the command `coi-tables`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
