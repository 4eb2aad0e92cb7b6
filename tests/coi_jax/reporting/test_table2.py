from pathlib import Path

from coi_jax.chains.dataset import DatasetWriter
from coi_jax.reporting import table2
from coi_jax.reporting.run_records import load
from coi_jax.reporting.table_files import as_page
from tests.helpers.scored_runs import write_run
from tests.helpers.token_caches import make_chain

SCORES = {"coi2_test": {"rouge_l": 70.0}}


def test_the_chains_of_the_runs_datasets_are_counted_beside_the_papers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with DatasetWriter(data, "made up") as writer:
        for number in range(7):
            writer.add("train", make_chain(number, 2))
        writer.add("test", make_chain(100, 3))
        writer.finish("none", {})
    for name, arm in (("a", "coi1"), ("b", "coi12")):
        write_run(tmp_path / "runs" / name, {"arm": arm, "data.folder": str(data)}, SCORES)
    write_run(tmp_path / "runs" / "c", {"arm": "coi123", "data.folder": str(tmp_path / "gone")}, SCORES)
    table = table2.make_table(load([tmp_path / "runs"]))
    (grid,) = table.sections.values()
    assert grid[0] == ["steps", "train", "train, paper", "test", "test, paper"]
    assert grid[2:4] == [["2", "7", "2,993", "–", "588"], ["3", "–", "2,187", "1", "480"]]
    assert [(cell["split"], cell["count"]) for cell in table.cells if cell["length"] == "3"] == [
        ("train", 0),
        ("test", 1),
    ]
    assert f"Not counted: dataset folder: {tmp_path / 'gone'}: no such folder" in as_page(table)
