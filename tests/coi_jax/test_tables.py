import errno
from pathlib import Path

import pytest

from coi_jax import tables
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.reporting.registry import FIGURES, TABLES, Report
from coi_jax.reporting.run_records import Records
from tests.helpers.scored_runs import procedural, write_run


def test_files_are_the_same_twice(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", {"arm": "coi12"}, procedural(90, 20, 2))
    for out in ("x", "y"):
        options = ["--table", "4", "--figure", "6", "--out", str(tmp_path / out)]
        assert tables.main(["--runs", str(tmp_path / "runs"), *options]) == 0
    names = sorted(path.name for path in (tmp_path / "x").iterdir())
    images = [f"figure6.{kind}" for kind in ("json", "pdf", "png", "svg")]
    assert names == images + [f"table4.{kind}" for kind in ("csv", "json", "md", "tex")]
    for name in names:
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


@pytest.mark.parametrize("arguments", [["--out", "x"], ["--table", "5", "--out", "x"], ["--figure", "6"]])
def test_wrong_arguments_exit_with_2(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tables.main(["--runs", str(tmp_path), *arguments])
    assert caught.value.code == cli.EXIT_USER_ERROR
    assert capsys.readouterr().err.count("\n") == 1


def test_a_table_that_cannot_be_made_is_named_and_the_others_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "a", {"arm": "coi12", "data.folder": "nowhere"}, procedural(90, 20, 2))
    arguments = ["--runs", str(run), "--out", str(tmp_path / "out"), "--table"]
    assert tables.main([*arguments, "2", "4"]) == cli.EXIT_USER_ERROR
    assert capsys.readouterr().err.startswith("table 2 left out: --table 2: dataset folder: nowhere: no such folder")
    assert (tmp_path / "out" / "table4.tex").exists()
    with pytest.raises(UserError, match="no dataset of the runs can be read"):
        tables.main([*arguments, "2"])


def test_what_a_full_disk_left_of_a_table_is_replaced_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "runs" / "a", {"arm": "coi12"}, procedural(90, 20, 2))
    arguments = ["--runs", str(tmp_path / "runs"), "--table", "4", "--out", str(tmp_path / "out")]
    write = files.write_text

    def fill(path: PathLike, text: str, field: str = "out") -> None:
        if str(path).endswith(".tex"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, text, field)

    monkeypatch.setattr(files, "write_text", fill)
    with pytest.raises(OSError, match="No space"):
        tables.main(arguments)
    assert (tmp_path / "out" / "table4.md").exists()
    monkeypatch.setattr(files, "write_text", write)
    assert tables.main(arguments) == 0
    assert (tmp_path / "out" / "table4.tex").exists()


def test_all_writes_what_the_runs_have_results_for_and_names_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs" / "a", {"arm": "coi12", "data.folder": "nowhere"}, {"bbh": {"rouge_l": 20.0}})
    arguments = ["--runs", str(tmp_path / "runs"), "--all", "--out", str(tmp_path / "out")]
    assert tables.main(arguments) == 0
    left_out = [line.partition(" left out: ")[0] for line in capsys.readouterr().err.splitlines()]
    made = [*(f"table {name}" for name in TABLES), *(f"figure {name}" for name in FIGURES)]
    assert left_out == [name for name in made if name != "table 4"]
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"table4"}


def test_no_runs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results yet"):
        tables.main(["--runs", str(tmp_path), "--table", "4", "--out", str(tmp_path)])


def test_a_table_is_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ArmsTable:
        def write(self, records: Records, folder: PathLike) -> list[str]:
            files.write_text(f"{folder}/table9.md", ", ".join(records.arms))
            return ["table9.md"]

    monkeypatch.setitem(TABLES, "9", Report("arms alone", ArmsTable()))
    run = write_run(tmp_path / "a", {"arm": "coi12"}, procedural(90, 20, 2))
    assert tables.main(["--runs", str(run), "--table", "9", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "table9.md").read_text() == "coi12"
    with pytest.raises(SystemExit):
        tables.main(["--help"])
    assert "9: arms alone" in capsys.readouterr().out
