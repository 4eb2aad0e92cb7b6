"""Table 6 of the paper from run records: WikiLingua, where a summary is the source of a translation."""

from collections.abc import Callable, Iterator
from typing import Any

from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.data.test_sets import TEST_SETS
from coi_jax.evaluation.scores import ScoreKey
from coi_jax.reporting import paper
from coi_jax.reporting.run_records import Cell, Records
from coi_jax.reporting.table4 import beside_paper, notes, provenance, show_interval, show_mean, show_papers
from coi_jax.reporting.table_files import Grid, Table, as_markdown, flat_row, write_table

GROUP = "wikilingua"  # of its test sets
# The paper's name of a row, the score that it shows, and its heading. The paper counts valid outputs, of 300.
ROWS = (
    ("rouge_l", ScoreKey("rouge_l"), "ROUGE-L of the whole text"),
    ("source_rouge_l", ScoreKey("rouge_l", 1), "ROUGE-L of the summary"),
    ("target_rouge_l", ScoreKey("rouge_l", 2), "ROUGE-L of the translation"),
    ("valid_source", ScoreKey("in_language", 1), "summaries in the source language, %"),
    ("valid_target", ScoreKey("in_language", 2), "translations in the target language, %"),
)


def write(records: Records, folder: PathLike) -> list[str]:
    """Write the table as Markdown, LaTeX, CSV and JSON, print it, and return the files' names.

    Raises:
      UserError: no run was scored on WikiLingua.
    """
    table = make_table(records)
    print(
        "\n\n".join(f"{test}\n\n{as_markdown(make_grid(records, test, show_mean))}" for test in tests(records)) + "\n"
    )
    return write_table(table, folder)


def tests(records: Records) -> list[str]:
    """Return the test sets of the table that a run was scored on."""
    return [test for test in records.test_sets if TEST_SETS[test].group == GROUP]


def make_table(records: Records) -> Table:
    """Return the table: a section for each pair of languages."""
    cells = [
        beside_paper(cell, papers_values(test, name, arm)) | {"row": name} for test, name, cell, arm in _cells(records)
    ]
    if not cells:
        known = ", ".join(test.name for test in TEST_SETS.values() if test.group == GROUP)
        raise UserError("--table 6", ", ".join(records.test_sets), f"needs a run that was scored on {known}")
    instances = paper.results()["table6"]["instances"]
    return Table(
        name="table6",
        title="Table 6: summaries and their translations (WikiLingua)",
        sections={test: make_grid(records, test, show_interval) for test in tests(records)},
        notes=[*notes(records), f"The paper counts valid outputs of {instances} instances; here they are per cent."],
        cells=cells,
        rows=[{"row": cell["row"], **flat_row(cell)} for cell in cells],
        content={"paper": paper.results()["source"]},
        appendix=provenance(records),
    )


def _cells(records: Records) -> Iterator[tuple[str, str, Cell, str]]:
    for test in tests(records):
        for name, key, _ in ROWS:
            for arm in records.arms:
                if cell := records.cell(arm, test, str(key)):
                    yield test, name, cell, arm


def papers_values(test: str, name: str, arm: str) -> dict[str, float]:
    """Return the paper's number for each of its models, counts as per cent; empty where it has none.

    Args:
      test: the test set.
      name: of the row, in `ROWS`.
      arm: its name.
    """
    table: dict[str, Any] = paper.results()["table6"]
    by_model = {model: by_arm[arm][name] for model, by_arm in table.get(test, {}).items() if arm in by_arm}
    scale = 100 / table["instances"] if name.startswith("valid") else 1.0
    return {model: value * scale for model, value in by_model.items()}


def make_grid(records: Records, test: str, show: Callable[[Cell], str]) -> Grid:
    """Return a row for each score of a test set: our arms, then the paper's.

    Args:
      records: the runs.
      test: the test set.
      show: formats a cell.
    """
    papers = [(model, arm) for model in paper.models() for arm in ("base", "coi12")]
    header = ["", *records.arms, *(f"{paper.models()[model]} {arm}, paper" for model, arm in papers)]
    body = []
    for name, key, title in ROWS:
        cells = {arm: records.cell(arm, test, str(key)) for arm in {*records.arms, "base", "coi12"}}
        ours = [show(cell) if (cell := cells[arm]) else "" for arm in records.arms]
        theirs = [_papers_cell(test, name, model, arm, cells[arm]) for model, arm in papers]
        body.append([title, *ours, *theirs])
    return [header, *body]


def _papers_cell(test: str, name: str, model: str, arm: str, cell: Cell | None) -> str:
    return show_papers(papers_values(test, name, arm).get(model), cell.mean if cell else None)
