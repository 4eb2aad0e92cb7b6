"""BIG-Bench Hard from run records: ROUGE-L of each of its tasks, and the mean over tasks, by arm."""

from collections.abc import Callable

from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.reporting import paper
from coi_jax.reporting.run_records import MEAN, Cell, Records
from coi_jax.reporting.table4 import beside_paper, notes, provenance, show_interval, show_mean, show_papers
from coi_jax.reporting.table_files import Grid, Table, as_markdown, flat_row, write_table

TEST_SET = "bbh"
METRICS = {"rouge_l": "ROUGE-L", "content_exact_match": "Exactly right, %"}
ALL = "mean over examples"


def write(records: Records, folder: PathLike) -> list[str]:
    """Write the table as Markdown, LaTeX, CSV and JSON, print it, and return the files' names.

    Raises:
      UserError: no run was scored on BIG-Bench Hard.
    """
    table = make_table(records)
    print(
        "\n\n".join(f"{title}\n\n{as_markdown(make_grid(records, key, show_mean))}" for key, title in METRICS.items())
    )
    return write_table(table, folder)


def make_table(records: Records) -> Table:
    """Return the table: a section for each score, a row for each task."""
    tasks = task_names(records)
    if not tasks:
        hint = f"no run has scores of BIG-Bench Hard; score one with python -m coi_jax.evaluate --tasks={TEST_SET}"
        raise UserError("--table bbh", f"runs scored on {', '.join(records.test_sets)}", hint)
    cells = [
        beside_paper(cell, papers_values(metric, arm) if task is None else {}) | {"task": task or ALL}
        for metric in METRICS
        for task in [*tasks, MEAN, None]
        for arm in records.arms
        if (cell := records.cell(arm, TEST_SET, metric, task))
    ]
    return Table(
        name="table_bbh",
        title="BIG-Bench Hard by task",
        sections={title: make_grid(records, metric, show_interval) for metric, title in METRICS.items()},
        notes=[*notes(records), f"The paper's number of an arm is compared with the {ALL}."],
        cells=cells,
        rows=[{"task": cell["task"], **flat_row(cell)} for cell in cells],
        content={"paper": paper.results()["source"]},
        appendix=provenance(records),
    )


def task_names(records: Records) -> list[str]:
    """Return the tasks that runs were scored on, in alphabetical order."""
    return sorted({task for row in records.rows if row.test_set == TEST_SET for task in row.tasks} - {MEAN})


def papers_values(metric: str, arm: str) -> dict[str, float]:
    """Return the paper's number for each of its models; empty where it has none.

    Args:
      metric: the key of the score.
      arm: its name.
    """
    if metric != paper.METRIC:
        return {}
    values = {model: paper.rouge_l(TEST_SET, model, arm) for model in paper.models()}
    return {model: value for model, value in values.items() if value is not None}


def make_grid(records: Records, metric: str, show: Callable[[Cell], str]) -> Grid:
    """Return a row for each task, then the means, with the paper's numbers below those of examples.

    Args:
      records: the runs.
      metric: the key of the score.
      show: formats a cell.
    """
    rows: list[tuple[str, str | None]] = [*((task, task) for task in task_names(records)), (MEAN, MEAN), (ALL, None)]
    body = [
        [title, *(show(cell) if (cell := records.cell(arm, TEST_SET, metric, task)) else "" for arm in records.arms)]
        for title, task in rows
    ]
    papers = [[f"{name}, paper", *_papers_row(records, metric, model)] for model, name in paper.models().items()]
    return [["task", *records.arms], *body, *(papers if metric == paper.METRIC else [])]


def _papers_row(records: Records, metric: str, model: str) -> list[str]:
    cells = [records.cell(arm, TEST_SET, metric) for arm in records.arms]
    values = [papers_values(metric, arm).get(model) for arm in records.arms]
    return [show_papers(value, cell.mean if cell else None) for value, cell in zip(values, cells, strict=True)]
