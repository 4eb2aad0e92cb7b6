"""Table 4 of the paper from run records: arms by test sets, beside the paper's own numbers."""

from collections.abc import Callable
from typing import Any

from coi_jax.common.storage import PathLike
from coi_jax.data.arms import sort_arms
from coi_jax.evaluation.scores import SCORES
from coi_jax.reporting import paper
from coi_jax.reporting.run_records import Cell, Records
from coi_jax.reporting.table_files import Grid, Table, as_markdown, as_page, flat_row, write_table

# The scores of the table: the key in results.json, and the heading.
METRICS = {score.key: score.title for score in SCORES.values() if score.in_table4}

BASELINE = "label-only baseline"


def write(records: Records, folder: PathLike) -> list[str]:
    """Write the table as Markdown, LaTeX, CSV and JSON, print it, and return the files' names."""
    print(brief(records))
    return write_table(make_table(records), folder)


def make_table(records: Records) -> Table:
    """Return the table: a section for each score, then notes and provenance."""
    cells = make_cells(records)
    return Table(
        name="table4",
        title="Table 4: arms by test sets",
        sections={title: grid(records, metric, show_interval) for metric, title in METRICS.items()},
        notes=notes(records),
        cells=cells,
        rows=[flat_row(cell) for cell in cells],
        content={
            "paper": paper.results()["source"],
            "label_only_baseline": label_only_baselines(records),
            "missing": missing(records),
        },
        appendix=provenance(records),
    )


def rows(records: Records) -> list[str]:
    """Return the arms of the table: those with a run, and all of the paper's where it has one of the test sets."""
    from_paper = paper.arms() if papers_test_sets(records) else []
    return sort_arms([*from_paper, *records.arms])


def papers_test_sets(records: Records) -> list[str]:
    """Return the test sets that the paper has numbers for: its own chains, not others under the same name."""
    return [test for test in records.test_sets if paper.has(test, records.source(test))]


def make_cells(records: Records) -> list[dict[str, Any]]:
    """Return every cell that has a number, with its provenance and the paper's values."""
    cells = [
        records.cell(arm, test, metric) for metric in METRICS for arm in records.arms for test in records.test_sets
    ]
    return [beside_paper(cell, papers_values(cell)) for cell in cells if cell]


def beside_paper(cell: Cell, papers: dict[str, float]) -> dict[str, Any]:
    """Return a cell as JSON values, with the paper's number for each of its models and what ours has more."""
    differences = {model: cell.mean - value for model, value in papers.items()}
    return cell.to_dict() | {"paper": papers, "difference": differences}


def papers_values(cell: Cell) -> dict[str, float]:
    """Return the paper's number for each of its models; empty where it has none for these chains and this score."""
    if cell.metric != paper.METRIC or not paper.has(cell.test_set, cell.source):
        return {}
    values = {model: paper.rouge_l(cell.test_set, model, cell.arm) for model in paper.models()}
    return {model: value for model, value in values.items() if value is not None}


def label_only_baselines(records: Records) -> dict[str, dict[str, float | None]]:
    """Return the score of answers with nothing but labels, by test set and score."""
    return {test: {key: records.label_only_baseline(test, key) for key in METRICS} for test in records.test_sets}


def missing(records: Records) -> dict[str, list[str]]:
    """Return the test sets that an arm of the table has no result on, by arm."""
    scored = {(record.arm, record.test_set) for record in records.rows}
    gaps = {arm: [test for test in records.test_sets if (arm, test) not in scored] for arm in rows(records)}
    return {arm: tests for arm, tests in gaps.items() if tests}


def markdown(records: Records) -> str:
    """Return the table as a self-contained page."""
    return as_page(make_table(records))


def brief(records: Records) -> str:
    """Return the table for a terminal: without intervals and provenance, which the files have."""
    parts = [f"{title}\n\n{as_markdown(grid(records, metric, show_mean))}" for metric, title in METRICS.items()]
    return "\n\n".join([*parts, "\n".join(notes(records)[1:])]) + "\n"


def grid(records: Records, metric: str, show: Callable[[Cell], str]) -> Grid:
    """Return one score's header, a row for each arm, and the label-only baseline; the paper's columns follow ours.

    Args:
      records: the runs.
      metric: the key of the score.
      show: formats a cell.
    """
    shared = papers_test_sets(records) if metric == paper.METRIC else []
    columns = [
        (test, model) for test in records.test_sets for model in ["", *(paper.models() if test in shared else ())]
    ]
    header = ["arm", *(f"{paper.models()[model]}, paper" if model else test for test, model in columns)]
    body = [
        [
            arm,
            *(
                _papers_cell(records, test, model, arm) if model else _our_cell(records, arm, test, metric, show)
                for test, model in columns
            ),
        ]
        for arm in rows(records)
    ]
    baseline = ["" if model else _format(records.label_only_baseline(test, metric)) for test, model in columns]
    return [header, *body, [BASELINE, *baseline]]


def _papers_cell(records: Records, test: str, model: str, arm: str) -> str:
    value, cell = paper.rouge_l(test, model, arm), records.cell(arm, test, paper.METRIC)
    return show_papers(value, cell.mean if cell else None)


def _our_cell(records: Records, arm: str, test: str, metric: str, show: Callable[[Cell], str]) -> str:
    cell = records.cell(arm, test, metric)
    return show(cell) if cell else ""


def show_papers(value: float | None, ours: float | None) -> str:
    """Return a number of the paper as text: `70.8`, or `70.8 (−15.0)` with what ours has more."""
    if value is None:
        return ""
    return f"{value:.1f}" + ("" if ours is None else f" ({ours - value:+.1f})".replace("-", "−"))


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def show_interval(cell: Cell) -> str:
    """Return a cell as text: `70.8 [69.5, 72.0]` for one run, `70.8 ± 0.4 (n=3)` for several."""
    if cell.sd is not None:
        return show_mean(cell)
    low, high = cell.interval
    return f"{cell.mean:.1f} [{low:.1f}, {high:.1f}]"


def show_mean(cell: Cell) -> str:
    """Return a cell as text: `70.8` for one run, `70.8 ± 0.4 (n=3)` for several."""
    return f"{cell.mean:.1f}" + (f" ± {cell.sd:.1f} (n={len(cell.records)})" if cell.sd is not None else "")


def notes(records: Records) -> list[str]:
    """Return the notes that a reader needs to interpret the table."""
    result = [
        "All scores x 100. Brackets: 95% bootstrap interval over examples, of one run. ±: sd over n seeds.",
        f"{BASELINE}: the score of an answer that has the labels and nothing else.",
    ]
    result.append(f"Examples: {', '.join(_count_examples(records, test) for test in records.test_sets)}.")
    shared = papers_test_sets(records)
    own = [f"{test} (data: {records.source(test)})" for test in records.test_sets if test not in shared]
    if shared:
        result.append(
            f"Columns marked paper are from {paper.results()['source']}, table 4; its models have 7B parameters. "
            "In brackets behind them: what ours has more."
        )
    if own:
        result.append(f"The paper has no numbers for {', '.join(own)}.")
    result += [f"No result yet: {arm} on {', '.join(tests)}." for arm, tests in missing(records).items()]
    result += [f"Not evaluated, though its config asks for it: {path}" for path in records.missing]
    result += [f"Left out: {fault}" for fault in records.damaged]
    if records.varying:
        result.append(f"The arms' configs differ besides in the arm: {', '.join(records.varying)}.")
    return result


def _count_examples(records: Records, test: str) -> str:
    scored, available = records.examples(test), records.available(test)
    return f"{test} {scored:,}" + ("" if scored == available else f" of {available:,}")


def provenance(records: Records) -> str:
    """Return the runs behind the table, a row each; every cell's own hashes are in the JSON."""
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
    return "## Where the numbers come from\n\n" + as_markdown([header, *body])
