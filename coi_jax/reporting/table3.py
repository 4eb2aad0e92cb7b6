"""Table 3 of the paper from run records: ROUGE-L of each step of a chain, by arm.

Steps are those that the labels of an answer mark, and where `python -m coi_jax.spans` was run those that a language
model marks, as in the paper.
"""

from collections.abc import Callable, Iterator
from typing import Any

from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.data.test_sets import chain_length
from coi_jax.evaluation.scores import ScoreKey
from coi_jax.evaluation.span_results import SPAN_ROUGE_L
from coi_jax.reporting import paper
from coi_jax.reporting.run_records import Cell, Records
from coi_jax.reporting.table4 import beside_paper, notes, provenance, show_interval, show_mean, show_papers
from coi_jax.reporting.table_files import Grid, Table, as_markdown, flat_row, write_table

# The kinds of scores, each with the heading of its section.
KINDS = {
    "rouge_l": "ROUGE-L of each step's content, labels taken off",
    SPAN_ROUGE_L: "ROUGE-L of each step's span as a language model marks it, 0 where it is absent or called wrong",
}


def write(records: Records, folder: PathLike) -> list[str]:
    """Write the table as Markdown, LaTeX, CSV and JSON, print it, and return the files' names.

    Raises:
      UserError: no run was scored on chains of a known length.
    """
    table = make_table(records)
    for kind in (kind for kind, heading in KINDS.items() if heading in table.sections):
        print(f"{KINDS[kind]}\n\n{as_markdown(make_grid(records, show_mean, kind))}\n")
    return write_table(table, folder)


def make_table(records: Records) -> Table:
    """Return the table: a row for each step of each test set."""
    kinds = [kind for kind in KINDS if any(_cells(records, kind))]
    cells = [cell for kind in kinds for cell in _cells(records, kind)]
    if not cells:
        raise UserError("--table 3", ", ".join(records.test_sets), "needs test sets of chains, such as coi2_test")
    return Table(
        name="table3",
        title="Table 3: steps of a chain",
        sections={KINDS[kind]: make_grid(records, show_interval, kind) for kind in kinds},
        notes=[*notes(records), "The paper has the spans of steps marked by a language model.", *_span_notes(records)],
        cells=cells,
        rows=[{"step": cell["step"], **flat_row(cell)} for cell in cells],
        content={"paper": paper.results()["source"]},
        appendix=provenance(records),
    )


def _cells(records: Records, kind: str) -> list[dict[str, Any]]:
    """Return every cell of a kind of score that has a number, beside the paper's."""
    return [
        beside_paper(cell, papers_values(cell.test_set, step, arm, cell.source)) | {"step": step}
        for test, step in steps(records)
        for arm in records.arms
        if (cell := step_cell(records, test, step, arm, kind))
    ]


def _span_notes(records: Records) -> list[str]:
    """Return who marked the spans of each run."""
    return [
        f"Spans of {row.arm}, seed {row.seed}, on {row.test_set}: {row.spans['asked']:,} answers marked by "
        f"{row.spans['judge']}, {row.spans['labelled']:,} by their labels, of {row.examples:,}; "
        f"{row.spans['unusable']:,} left out without a usable reply."
        for row in records.rows
        if row.spans
    ]


def steps(records: Records) -> Iterator[tuple[str, int]]:
    """Yield every test set of chains with each of its steps, from 1."""
    for test in records.test_sets:
        for step in range(1, (chain_length(test) or 0) + 1):
            yield test, step


def step_cell(records: Records, test: str, step: int, arm: str, kind: str) -> Cell | None:
    """Return a score of a step; None where no run of the arm has it.

    Args:
      records: the runs.
      test: the test set.
      step: of its chains, from 1.
      arm: its name.
      kind: of the score, in `KINDS`.
    """
    return records.cell(arm, test, str(ScoreKey(kind, step)))


def papers_values(test: str, step: int, arm: str, source: str) -> dict[str, float]:
    """Return the paper's number for each of its models; empty where it has none.

    Args:
      test: the test set.
      step: of its chains, from 1.
      arm: its name.
      source: where the chains of the test set come from.
    """
    if not paper.has(test, source):
        return {}
    by_model: dict[str, dict[str, float]] = paper.results()["table3"].get(test, {}).get(str(step), {})
    return {model: by_arm[arm] for model, by_arm in by_model.items() if arm in by_arm}


def make_grid(records: Records, show: Callable[[Cell], str], kind: str = "rouge_l") -> Grid:
    """Return a row for each step of each test set: our arms, then the paper's base and tuned model.

    Args:
      records: the runs.
      show: formats a cell.
      kind: of the score, in `KINDS`.
    """
    has_papers = any(paper.has(test, records.source(test)) for test in records.test_sets)
    papers = [(model, tuned) for model in paper.models() for tuned in (False, True)] if has_papers else []
    names = [f"{paper.models()[model]} {'CoI' if tuned else 'base'}, paper" for model, tuned in papers]
    body = [
        [
            test,
            str(step),
            *(show(cell) if (cell := step_cell(records, test, step, arm, kind)) else "" for arm in records.arms),
            *(_papers_cell(records, test, step, model, tuned, kind) for model, tuned in papers),
        ]
        for test, step in steps(records)
    ]
    return [["test set", "step", *records.arms, *names], *body]


def _papers_cell(records: Records, test: str, step: int, model: str, tuned: bool, kind: str) -> str:
    arm = paper.results()["table3"]["arms"].get(test, "") if tuned else "base"
    value = papers_values(test, step, arm, records.source(test)).get(model)
    cell = step_cell(records, test, step, arm, kind)
    return show_papers(value, cell.mean if cell else None)
