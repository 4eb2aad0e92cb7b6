import subprocess
from pathlib import Path
from typing import Any

import pytest

from coi_jax.common import cli, files
from coi_jax.config.run import load_config
from launch.preflight import __main__ as preflight
from launch.preflight import table
from launch.preflight.table import CONFIG, MODELS, TOPOLOGIES, Cell
from launch.preflight.topologies import GIB

ATTEMPTS = [
    {"memory": {"kinds": {"temporaries": 1}, "total": 20 * GIB}},
    {"memory": {"kinds": {"temporaries": 1}, "total": 30 * GIB}},
    {"memory": {"kinds": {"parameters": 1}, "total": 15 * GIB}},  # of the state alone
]


def result(cell: Cell, **more: Any) -> dict[str, Any]:
    train = {
        "memory": {"total": 9 * GIB},
        "roofline": {"least_seconds": 1.0, "most_seconds": 2.5},
        "mfu": [0.2, 0.5],
        "examples_per_second": [100.0, 256.0],
    }
    return {
        "overrides": cell.overrides,
        "fits": True,
        "fits_as_configured": False,
        "mesh": {"fsdp": 4, "tensor": 4},
        "settings": {"model.remat": "dots", "train.microbatches": 3},
        "attempts": ATTEMPTS,
        "topology": {"hbm_bytes": 15.75 * GIB},
        "programs": {"train": train},
        **more,
    }


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of child processes, which leave results instead of compiling; those of a v6e-8 fail."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        options = dict(argument.partition("=")[::2] for argument in command)
        if options["--topology"] == "v6e-8":
            return subprocess.CompletedProcess(command, 2)
        overrides = cli.split_overrides([argument for argument in command if argument.startswith("--config.")])[1]
        cell = Cell("", "", CONFIG, overrides, Path(options["--out"]))
        files.write_json(cell.path, result(cell))
        return subprocess.CompletedProcess(command, preflight.EXIT_DOES_NOT_FIT)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_every_cell_is_a_config_that_loads() -> None:
    for cell in table.cells(Path("cells")):
        config = load_config(CONFIG, cell.overrides)
        assert config.model.kind == ("t5" if "T5" in cell.model else "decoder")
    assert len({cell.path for cell in table.cells(Path("cells"))}) == len(MODELS) * len(TOPOLOGIES)


def test_cells_that_are_there_are_not_computed_again(
    children: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = table.cells(tmp_path)[0]
    assert table.main([f"--out={tmp_path}", "--only", first.path.stem]) == 0
    assert len(children) == 1
    assert table.main([f"--out={tmp_path}"]) == 1, "those of one slice fail"
    assert len(children) == len(MODELS) * len(TOPOLOGIES)
    assert table.main([f"--out={tmp_path}"]) == 1
    assert len(children) == len(MODELS) * (len(TOPOLOGIES) + 1), "only those that failed are tried again"
    rows = capsys.readouterr().out.strip().splitlines()[-len(MODELS) :]
    assert all(row.count("<br>") == 4 * (len(TOPOLOGIES) - 1) for row in rows)


def test_a_cell_of_other_flags_is_computed_again(children: list[list[str]], tmp_path: Path) -> None:
    first = table.cells(tmp_path)[0]
    files.write_json(first.path, result(first, overrides={"model.layers": 2}))
    table.main([f"--out={tmp_path}", "--only", first.path.stem])
    assert len(children) == 1


def test_a_cell_says_what_fits_and_how_fast_it_can_be() -> None:
    cell = table.cells(Path("cells"))[0]
    assert table.describe(result(cell)).split("<br>") == [
        "with `remat=dots` `microbatches=3` `tensor=4`",
        "9.0 of 15.8 GiB",
        "1.00–2.50 s a step",
        "MFU 20–50%",
        "100–256 examples/s",
    ]
    assert table.describe(result(cell, fits=False)) == "no: 20.00 of 15.75 GiB at least"
    assert table.describe(None) == ""


def test_an_unknown_cell_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(lambda: table.main([f"--out={tmp_path}", "--only", "gpt_v5e-16"])) == 2
    assert capsys.readouterr().err.startswith("error: only: gpt_v5e-16: no such cell; one of mistral_7b_v5e-16, ")


def test_a_file_is_no_folder_of_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert cli.run(lambda: table.main([f"--out={tmp_path}/file", "--dry_run"])) == 2
    assert capsys.readouterr().err == f"error: --out: {tmp_path}/file: is a file; name a folder\n"
