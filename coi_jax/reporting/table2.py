"""Table 2 of the paper: the number of chains of each length that the runs' datasets have for training and for tests."""

from collections.abc import Sequence
from dataclasses import dataclass

from coi_jax.chains.dataset import read_manifest
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.reporting import paper
from coi_jax.reporting.run_records import Records
from coi_jax.reporting.table_files import Grid, Table, as_markdown, write_table

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Dataset:
    """A dataset that runs were trained on.

    Attributes:
      folder: its path.
      source: where its chains come from, by its manifest.
      counts: of each split by chain length, as the manifest has them.
    """

    folder: str
    source: str
    counts: dict[str, dict[str, int]]


def write(records: Records, folder: PathLike) -> list[str]:
    """Write the table as Markdown, LaTeX, CSV and JSON, print it, and return the files' names.

    Raises:
      UserError: no dataset of the runs can be read.
    """
    table = make_table(records)
    print("\n\n".join(f"{heading}\n\n{as_markdown(grid)}" for heading, grid in table.sections.items()) + "\n")
    return write_table(table, folder)


def make_table(records: Records) -> Table:
    """Return the table: a section for each dataset."""
    datasets, faults = read_datasets(records)
    if not datasets:
        raise UserError("--table 2", ", ".join(faults), "no dataset of the runs can be read")
    cells = [cell for dataset in datasets for cell in make_cells(dataset)]
    notes = [
        "Chains by the number of their steps.",
        f"The paper's counts are from {paper.results()['source']}, table 2.",
    ]
    return Table(
        name="table2",
        title="Table 2: chains by length",
        sections={f"{dataset.source} ({dataset.folder})": make_grid(dataset) for dataset in datasets},
        notes=[*notes, *(f"Not counted: {fault}" for fault in faults)],
        cells=cells,
        rows=cells,
        content={"paper": paper.results()["source"]},
    )


def read_datasets(records: Records) -> tuple[list[Dataset], list[str]]:
    """Return the datasets of the runs, and why others cannot be read."""
    datasets, faults = [], []
    for folder in dict.fromkeys(record.config.data.folder for record in records.rows):
        try:
            manifest = read_manifest(folder)
            datasets.append(Dataset(folder, manifest["source"], manifest["counts"]))
        except UserError as error:
            faults.append(str(error))
    return datasets, faults


def make_cells(dataset: Dataset) -> list[dict[str, object]]:
    """Return the count of every split and length, with the paper's and where it comes from."""
    return [
        {
            "folder": dataset.folder,
            "source": dataset.source,
            "split": split,
            "length": length,
            "count": dataset.counts.get(split, {}).get(length, 0),
            "paper": papers_count(split, length),
        }
        for length in lengths(dataset)
        for split in SPLITS
    ]


def lengths(dataset: Dataset) -> Sequence[str]:
    """Return the chain lengths that the dataset or the paper has."""
    found = {length for split in SPLITS for length in dataset.counts.get(split, {})}
    papers = {length for split in SPLITS for length in paper.results()["table2"][split]}
    return sorted(found | papers, key=int)


def papers_count(split: str, length: str) -> int | None:
    """Return the paper's number of chains; None where it has none.

    Args:
      split: train or test.
      length: of the chains.
    """
    count: int | None = paper.results()["table2"][split].get(length)
    return count


def make_grid(dataset: Dataset) -> Grid:
    """Return a row for each length, with the paper's counts beside the dataset's."""
    header = ["steps", *(column for split in SPLITS for column in (split, f"{split}, paper"))]
    counts = {(cell["split"], cell["length"]): cell for cell in make_cells(dataset)}
    pairs = [
        [(counts[split, length][key]) for split in SPLITS for key in ("count", "paper")] for length in lengths(dataset)
    ]
    return [header, *([length, *map(_show, row)] for length, row in zip(lengths(dataset), pairs, strict=True))]


def _show(count: object) -> str:
    return f"{count:,}" if count else "–"
