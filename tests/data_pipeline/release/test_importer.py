import collections
import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from coi_jax.chains.chain import render
from coi_jax.chains.dataset import DatasetWriter, read_chains, read_manifest
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.files import read_jsonl
from data_pipeline.release import download
from data_pipeline.release.__main__ import main
from data_pipeline.release.importer import import_release
from data_pipeline.release.release_files import FILES
from tests.helpers.paths import ROOT

COI_1 = [{"instruction": "Name a colour.", "input": "grass", "output": "green"}]
COI_2: list[dict[str, Any]] = [
    {"instruction": "Name a colour. and then Say its opposite.", "input": "grass", "output": render(["green", "red"])},
    {"instruction": "Name a colour. and then Spell it.", "input": "grass", "output": render(["green", "g-r"])},
    {"instruction": "Name a colour. and then Spell it.", "input": "grass", "output": render(["green", "g-r"])},
    {"instruction": "Turn it round and then Read it.", "input": "on", "output": render(["no"])},
    {
        "instruction": "Name a colour. and then Take the last letter and then shout it.",
        "input": "sky",
        "output": "Task 1 output and task 2 input: blue \nTask2 output: E",
        "votes": 3,
    },
]
NEW = {"instruction": "Weigh the sack.", "input": "flour", "output": "2 kg"}
SUMMARY = [
    {"instruction": "Sum up and then translate", "input": "Il pleut.", "eng_output": "Pluie.", "output": "Rain."}
]


def write_release(folder: Path, **data: Any) -> Path:
    """A release of a few rows; names are the sources of its files, with "." and "/" as in `FILES`."""
    paths = {file.source: file.path for file in FILES}
    for source, rows in data.items():
        path = folder / "data" / paths[source]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(arguments: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    status = cli.run(lambda: main([str(argument) for argument in arguments]))
    return status, capsys.readouterr().err.splitlines()


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    src = write_release(
        tmp_path / "src",
        **{
            "coi_1.json": COI_1,
            "coi_2.json": COI_2,
            "coi_12.json": [*COI_2, *COI_1, NEW],
            "summarized_coi_12": [*COI_1, COI_2[0] | {"instruction": "Say the opposite colour."}],
            "irrelevant_coi_2.json": COI_2[:1],
            "bigbenchhard/test_snarks": COI_1,
            "spa2eng_summarize_then_translate200.json.json": SUMMARY,
        },
    )
    notes = import_release(src, tmp_path / "out")
    accounts = notes["files"]
    for account in accounts.values():
        assert account["rows"] == (
            sum(account["chains"].values()) + sum(account["repeats"].values()) + account["rejected"]
        )
    assert accounts["train/coi_2.json"]["chains"] == {"2": 4}
    assert accounts["train/coi_2.json"]["unknown_keys"] == {"votes": 1}
    assert accounts["train/coi_12.json"]["repeats"] == {"coi_2.json": 5, "coi_1.json": 1}
    assert accounts["train/coi_12.json"]["chains"] == {"1": 1}
    assert accounts["train/summarized_coi_12"]["repeats"] == {"coi_1.json": 1}
    assert accounts["train/summarized_coi_12"]["chains"] == {"2": 1}
    manifest = read_manifest(tmp_path / "out")
    assert manifest["counts"] == {
        "bbh": {"1": 1},
        "irrelevant": {"2": 1},
        "summarized": {"2": 1},
        "train": {"1": 2, "2": 4},
        "wikilingua_es_en": {"2": 1},
    }
    assert (manifest["licence"], manifest["source"]) == ("CC BY-NC 4.0", "amazon-science/chain-of-instructions")
    assert {chain.source for chain in read_chains(tmp_path / "out", "train", 1)} == {"coi_1.json", "coi_12.json"}


def test_a_rejected_row_is_kept_whole_with_its_reason(tmp_path: Path) -> None:
    broken: list[Any] = [
        7,
        {"instruction": "Go."},
        {"instruction": "\ud800", "input": "\udfff", "output": COI_2[0]["output"]},
    ]
    src = write_release(tmp_path / "src", **{"coi_2.json": [*COI_2, *broken]})
    import_release(src, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text("utf-8").splitlines()]
    assert [(line["file"], line["number"]) for line in lines] == [("train/coi_2.json", n) for n in (3, 5, 6, 7)]
    assert [line["row"] for line in lines[:3]] == [COI_2[3], *broken[:2]]
    assert json.loads(lines[3]["row"]) == broken[2]
    assert "1 outputs where 2 are due" in lines[0]["reason"]
    assert sum(read_manifest(tmp_path / "out")["rejected"].values()) == 4


def test_the_manifest_tells_how_an_irregular_row_was_read(tmp_path: Path) -> None:
    notes = import_release(write_release(tmp_path / "src", **{"coi_2.json": COI_2}), tmp_path / "out")
    (irregular,) = notes["irregular_rows"]
    assert irregular["id"] == "coi_2.json#4"
    assert irregular["steps"] == ["Name a colour.", "Take the last letter and then shout it."]
    chain = next(c for c in read_chains(tmp_path / "out", "train") if c.id == "coi_2.json#4")
    assert chain.outputs == ("blue", "E")


def test_first_steps_stand_in_for_single_instructions(tmp_path: Path) -> None:
    src = write_release(tmp_path / "src", **{"coi_2.json": COI_2})
    notes = import_release(src, tmp_path / "out")
    first = list(read_chains(tmp_path / "out", "train", 1))
    assert [(c.instruction, c.input, c.outputs) for c in first] == [
        ("Name a colour.", "grass", ("green",)),
        ("Name a colour.", "sky", ("blue",)),
    ]
    assert {chain.source for chain in first} == {"coi_2.json#first_step"}
    assert notes["first_steps"] == {"coi_2.json#first_step": 2}
    import_release(src, tmp_path / "out", first_steps=False)
    assert "1" not in read_manifest(tmp_path / "out")["counts"]["train"]


def test_ids_are_unique_and_the_import_is_the_same_twice(tmp_path: Path) -> None:
    src = write_release(tmp_path / "src", **{"coi_2.json": COI_2, "coi_12.json": [NEW], "summarized_coi_2.json": COI_2})
    import_release(src, tmp_path / "a")
    import_release(src, tmp_path / "b")
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    ids = [
        chain.id for split in read_manifest(tmp_path / "a")["counts"] for chain in read_chains(tmp_path / "a", split)
    ]
    assert len(ids) == len(set(ids))


def test_unknown_missing_and_changed_files_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = write_release(tmp_path / "src", **{"coi_2.json": COI_2})
    (src / "data" / "train" / "coi_4.json").write_text("[]")
    assert main(["--src", str(src), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "unknown file, not imported: train/coi_4.json" in printed
    assert "differs from the published file: train/coi_2.json" in printed
    assert "2 first steps stand in" in printed
    notes = read_manifest(tmp_path / "out")["notes"]
    assert notes["unknown_files"] == ["train/coi_4.json"]
    assert "train/coi_3.json" in notes["missing_files"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(COI_2).encode()[:-30], "cut short"),
        (b"", "is empty"),
        (b"[]", "no row is readable"),
        (b'[{"instruction": "caf\xe9"}]', "not UTF-8"),
        (b'{"rows": []}', "is an object whose key rows holds an array"),
        (b'[{"question": "a", "answer": "b"}]', "no key 'instruction'"),
        (b'[{"instruction": 1, "input": 2, "output": 3}]', "is not a string"),
    ],
)
def test_a_wrong_file_is_one_line_and_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    src, out = write_release(tmp_path / "src", **{"coi_2.json": COI_2, "coi_1.json": COI_1}), tmp_path / "out"
    import_release(src, out)
    before = snapshot(tmp_path)
    (src / "data" / "train" / "coi_2.json").write_bytes(content)
    status, errors = run(["--src", src, "--out", out], capsys)
    assert status == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert "coi_2.json" in errors[0]
    changed = {"src/data/train/coi_2.json": content}
    assert snapshot(tmp_path) == before | changed


def test_a_folder_that_is_no_release_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty" / "data" / "train").mkdir(parents=True)
    for src in (tmp_path / "none", tmp_path, tmp_path / "empty"):
        status, errors = run(["--src", src, "--out", tmp_path / "out"], capsys)
        assert (status, len(errors)) == (2, 1)
        assert str(src) in errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("full", [["train.jsonl"], ["train.jsonl", "irrelevant.jsonl"], ["irrelevant.jsonl"]])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full: list[str]
) -> None:
    src = write_release(tmp_path / "src", **{"coi_2.json": COI_2 * 100, "irrelevant_coi_2.json": COI_2})
    out = tmp_path / "out"
    import_release(src, out)
    before = snapshot(tmp_path)

    def on_a_full_disk(path: str, mode: str, **rest: Any) -> IO[Any]:
        return open("/dev/full" if Path(path).name in full and mode == "wb" else path, mode, **rest)

    monkeypatch.setattr("etils.epath.backend.open", on_a_full_disk, raising=False)
    status, errors = run(["--src", src, "--out", out], capsys)
    assert (status, len(errors)) == (2, 1)
    assert os.strerror(errno.ENOSPC) in errors[0]
    assert snapshot(tmp_path) == before


def test_an_out_that_is_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = write_release(tmp_path / "src", **{"coi_2.json": COI_2})
    (tmp_path / "out").write_text("mine")
    status, errors = run(["--src", src, "--out", tmp_path / "out"], capsys)
    assert (status, len(errors)) == (2, 1)
    assert (tmp_path / "out").read_text() == "mine"


def test_without_src_it_downloads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed_port = "http://127.0.0.1:9"
    arguments: list[str | Path] = [
        "--base_url",
        f"{closed_port}/data",
        "--download_folder",
        tmp_path / "cache",
        "--out",
        tmp_path / "out",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "FIRST_PAUSE_SECONDS", 0.0)
        status, errors = run(arguments, capsys)
    assert (status, len(errors)) == (2, 1)
    assert closed_port in errors[0]
    assert not (tmp_path / "out").exists()


def test_the_real_release(release_folder: Path, tmp_path: Path) -> None:
    # In a process of its own: the shape checks of tests would take most of the time here.
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "data_pipeline.release",
        "--src",
        release_folder,
        "--out",
        tmp_path / "out",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["rejected"] == {}
    assert manifest["counts"] == {
        "bbh": {"1": 6511},
        "test": {"2": 588, "3": 480},
        "train": {"1": 874, "2": 2933, "3": 2187},
        "wikilingua_en_fr": {"2": 200},
    }
    notes = manifest["notes"]
    assert all(account["published"] for account in notes["files"].values())
    assert not notes["unknown_files"]
    by_file = collections.Counter(irregular["file"] for irregular in notes["irregular_rows"])
    assert by_file == {"train/coi_2.json": 9, "train/coi_3.json": 4, "test/coi2_test.json": 1, "test/coi3_test.json": 1}

    rows = [row for split in ("train", "test") for row in read_jsonl(tmp_path / "out" / f"{split}.jsonl")]
    spelled = {chain.source for chain in read_chains(tmp_path / "out", "test") if chain.published_targets}
    assert spelled == {"coi2_test.json"}
    steps = [(row["id"], step) for row in rows if len(row["steps"]) > 1 for step in row["steps"]]
    label = re.compile(r"task ?[0-9] output", re.IGNORECASE)
    assert not [id for id, step in steps if step["output"] != step["output"].strip() or label.search(step["output"])]
    assert [id for id, step in steps if not step["output"] or not step["instruction"]] == ["coi_2.json#1658"]


def test_a_folder_of_another_dataset_stays_and_nothing_is_downloaded(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with DatasetWriter(out, "made here") as writer:
        writer.finish("Apache-2.0", {})
    before = (out / "manifest.json").read_bytes()
    downloads = tmp_path / "downloads"
    with pytest.raises(UserError, match=r"out.*'made here'.*name a new folder"):
        main([f"--out={out}", f"--download_folder={downloads}", "--base_url=http://127.0.0.1:9"])
    assert (out / "manifest.json").read_bytes() == before
    assert not downloads.exists()
