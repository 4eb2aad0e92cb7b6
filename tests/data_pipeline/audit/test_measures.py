import collections
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coi_jax.chains.chain import Chain, Step, join
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from data_pipeline.audit.__main__ import main
from data_pipeline.audit.measures import (
    PERCENTILES,
    Degenerate,
    Leaks,
    audit,
    degeneracy,
    percentiles_of,
    repeated_share,
)
from data_pipeline.audit.text_report import text_report
from tests.helpers.paths import ROOT


def make(number: int, instructions: list[str], input: str, outputs: list[str | None], **more: str) -> Chain:
    steps = tuple(Step(i, o, **more) for i, o in zip(instructions, outputs, strict=True))
    return Chain(f"made#{number}", "made", input, join(instructions), steps)


TRAIN = [
    make(0, ["Sort.", "Count."], "pears", ["prs", "3"], category="order"),
    make(1, ["Sort.", "Shout."], "plums", ["lm", "LM"], category="order"),
    make(2, ["Sort.", "Shout."], "plums", ["lm", "LM"], category="order"),
    make(3, ["Sort.", "Shout."], "plums", ["lm", "ML"], category="order"),
    make(4, ["Sort."], "figs", ["fgs"], category="order"),
]
TEST = [
    make(5, ["Sort.", "Count."], "pears", ["prs", "4"]),  # the row
    make(6, ["Sort.", "Count."], "dates", ["dts", "3"]),  # the instruction
    make(7, ["Weigh.", "Guess."], "plums", ["9 g", ""]),  # the input; an empty output
    make(8, ["Weigh."], "plums", [None]),  # the input of another length
    make(9, ["Weigh.", "Tell.", "Boast."], "nuts", ["1 g", "one", "ha " * 40]),
]


def write_unchecked(folder: Path, splits: dict[str, list[Chain]], counted: list[str]) -> Path:
    """A dataset folder as another program may write it: ids repeat, and the manifest counts some splits alone."""
    folder.mkdir()
    for split, chains in splits.items():
        lines = (json.dumps(chain.row()) + "\n" for chain in chains)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    counts = {split: collections.Counter(str(chain.length) for chain in splits[split]) for split in counted}
    digests = {f"{split}.jsonl": files.sha256(folder / f"{split}.jsonl") for split in splits}
    manifest = {"source": "made here", "licence": "Apache-2.0", "counts": counts, "rejected": {}, "notes": {}}
    files.write_json(folder / "manifest.json", manifest | {"sha256": digests})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_unchecked(tmp_path / "data", {"train": TRAIN * 2, "test": TEST}, ["train", "test"])


def findings(folder: Path, limits: tuple[int, ...] = (64, 4096)) -> dict[str, Any]:
    return audit(folder, ByteVocabulary(), "plain", limits)


def test_leaks_by_length(folder: Path) -> None:
    lines = {line["length"]: line for line in findings(folder)["leaks"]}
    names = {"split": "test", "within": "train"}
    assert lines == {
        1: names | {"length": 1, "chains": 1, "row": 0, "instruction": 0, "input": 0, "first_step": 0},
        2: names | {"length": 2, "chains": 3, "row": 1, "instruction": 2, "input": 2, "first_step": 1},
        "any": names | {"length": "any", "chains": 5, "row": 1, "instruction": 2, "input": 3, "first_step": 1},
    }


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 9)), max_size=30))
def test_leaks_are_those_of_plain_sets(rows: list[tuple[str, str, int]]) -> None:
    leaks = Leaks()
    splits: dict[str, list[tuple[str, str]]] = {"a": [], "b": []}
    for split, instruction, input in rows:
        splits[split].append((instruction, str(input)))
        leaks.add(split, make(0, [instruction], str(input), [""]))
    small, large = sorted(splits.values(), key=len) if len(splits["a"]) != len(splits["b"]) else splits.values()
    for line in leaks.report():
        assert line["chains"] == len(small)
        assert line["row"] == sum(row in large for row in small)
        assert line["input"] == sum(row[1] in {other[1] for other in large} for row in small)
        assert line["first_step"] == line["row"]  # these chains have one step
    assert bool(leaks.report()) == bool(splits["a"] and splits["b"])


def test_duplicates_are_told_apart_by_their_outputs(folder: Path) -> None:
    line = findings(folder)["duplicates"]["train"]
    assert (line["rows"], line["chains"]) == (4, 6)  # the second copy of TRAIN has the same ids and outputs
    assert ["made#1", "made#3"] in line["pairs"]
    assert findings(folder)["duplicates"]["test"]["rows"] == 0


def test_repeated_ids_and_splits_that_the_manifest_does_not_count_are_told(folder: Path, tmp_path: Path) -> None:
    found = findings(folder)
    assert found["repeated_ids"] == {"train": {f"made#{number}": 2 for number in range(5)}}
    assert found["uncounted"] == []
    assert re.search(r"train +5 +10 +made#0", text_report(found))
    other = write_unchecked(tmp_path / "other", {"train": TRAIN, "test": TEST}, ["train"])
    (other / "notes.jsonl").write_text('{"id": "made#0", "verdicts": []}\n', encoding="utf-8")
    found = findings(other)
    assert found["repeated_ids"] == {}
    assert found["uncounted"] == ["test"]
    assert "test.jsonl holds chains that manifest.json does not count" in text_report(found)


def test_degenerate_outputs_are_found_and_missing_ones_are_not(folder: Path) -> None:
    found = findings(folder)["degenerate"]
    assert [(line["id"], line["step"], line["fault"]) for line in found] == [
        ("made#9", 3, "repetitive"),
        ("made#7", 2, "empty"),
    ]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=30))
def test_the_repeated_share_counts_runs_that_stood_before(words: list[str]) -> None:
    runs = [tuple(words[k : k + 3]) for k in range(len(words) - 2)]
    before = sum(run in runs[:k] for k, run in enumerate(runs))
    assert repeated_share(" ".join(words)) == pytest.approx(before / len(runs))


def test_what_is_degenerate() -> None:
    sound = " ".join(f"word{k}" for k in range(999))
    assert degeneracy(sound) is None
    assert degeneracy(sound + " and so on") == "long"
    assert degeneracy("yes yes yes yes") is None
    assert degeneracy("break the " * 5000) == "repetitive"
    assert degeneracy(" \n") == "empty"
    assert Degenerate().report() == []


@given(st.lists(st.integers(0, 99), min_size=1))
def test_percentiles_are_nearest_ranks(values: list[int]) -> None:
    found = percentiles_of(values)
    assert found["100"] == max(values)
    for p in PERCENTILES:
        value = found[str(p)]
        assert value in values
        assert sum(v <= value for v in values) >= p * len(values) / 100
        assert sum(v < value for v in values) < p * len(values) / 100


def lengths_of(found: dict[str, Any], split: str, length: int) -> dict[str, Any]:
    return next(line for line in found["lengths"] if (line["split"], line["length"]) == (split, length))


def test_lengths_and_cuts_count_the_end_mark(folder: Path) -> None:
    whole = len("Sort.\nfigs\n") + len("fgs") + 1
    line = lengths_of(findings(folder, (whole, whole - 1)), "train", 1)
    assert line["tokens"] == {str(p): whole for p in PERCENTILES}
    assert line["input_words"]["100"] == line["target_words"]["100"] == 1
    assert line["cut"] == {str(whole): 0, str(whole - 1): 2}


def test_places_of_categories_and_verbs(folder: Path) -> None:
    places = findings(folder)["places"]
    assert places["categories"] == {"order": {"first": 8, "last": 8, "only": 2}}
    assert places["verbs"]["sort"] == {"first": 10, "only": 2}
    assert places["verbs"]["tell"] == {"middle": 1}
    assert list(places["verbs"])[:2] == ["sort", "shout"]


def test_json_holds_all_findings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(folder), "--vocabulary", "bytes", "--template", "plain", "--length", "64", "4096"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(findings(folder)))
    assert main(arguments) == 0
    assert capsys.readouterr().out == text_report(findings(folder)) + "\n"


def test_the_text_report_tells_the_findings_and_fits_a_terminal(folder: Path) -> None:
    report = text_report(findings(folder))
    assert max(map(len, report.replace(str(folder), "data").splitlines())) <= 100
    for part in ("test in train", "1 (33.3%)", "2 (66.7%)", "made#9", "repetitive", "order", "Apache-2.0"):
        assert part in report


def test_the_text_report_leaves_long_lists_to_json(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", "made here") as writer:
        for k in range(40):
            writer.add("train", make(k, [f"Verb{k} it."], str(k), [f"n{k} " * 30]))
        writer.finish("Apache-2.0", {})
    report = text_report(findings(tmp_path / "data"))
    assert "… and 28 more outputs" in report
    assert "… and 28 more words" in report
    assert "none given" in report


@pytest.mark.parametrize("flags", [["--vocabulary", "sentencepiece"], ["--vocabulary_file", "v99"]])
def test_an_unknown_vocabulary_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert cli.run(lambda: main(["--data", str(folder), *flags])) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_that_is_no_dataset_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(lambda: main(["--data", str(tmp_path), "--vocabulary", "bytes"])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "manifest.json" in line


def test_a_manifest_without_counts_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = files.read_object(folder / "manifest.json")
    files.write_json(folder / "manifest.json", manifest | {"counts": {}})
    assert cli.run(lambda: main(["--data", str(folder)])) == cli.EXIT_USER_ERROR
    assert (
        capsys.readouterr().err
        == f"error: data: {folder}: its manifest counts no chains; build or import the dataset again\n"
    )


def test_a_damaged_row_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(folder / "test.jsonl", "a") as file:
        file.write('{"id": "x"')
    assert cli.run(lambda: main(["--data", str(folder), "--vocabulary", "bytes"])) == 2
    assert "test.jsonl:6" in capsys.readouterr().err


def test_the_order_of_rows_does_not_matter_to_counts(tmp_path: Path) -> None:
    reports = []
    for seed in range(2):
        with DatasetWriter(tmp_path / str(seed), "made here") as writer:
            for chain in random.Random(seed).sample([*TRAIN, *TEST], k=10):
                writer.add("test" if chain in TEST else "train", chain)
            writer.finish("Apache-2.0", {})
        report = findings(tmp_path / str(seed))
        reports.append([report[key] for key in ("leaks", "lengths", "places", "degenerate")])
    assert reports[0] == reports[1]


def test_a_vocabulary_has_the_file_that_it_needs_and_no_other() -> None:
    with pytest.raises(UserError, match=r"^vocabulary_file: other\.model: bytes need no file; leave it out"):
        main(["--data", "data", "--vocabulary", "bytes", "--vocabulary_file", "other.model"])
    for kind in ("sentencepiece", "tokenizer"):
        with pytest.raises(UserError, match=rf"^vocabulary_file: '': has no value, and --vocabulary {kind} needs one"):
            main(["--data", "data", "--vocabulary", kind])


def run_module(module: str, *arguments: str | Path) -> str:
    """What a command prints. A process of its own has no shape checks, which would take most of the time here."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_the_real_release_leaks_what_its_readers_found(release_folder: Path, tmp_path: Path) -> None:
    run_module("data_pipeline.release", "--src", release_folder, "--out", tmp_path / "out")
    found = json.loads(run_module("data_pipeline.audit", "--data", tmp_path / "out", "--vocabulary", "bytes", "--json"))
    leaks = {line["length"]: line for line in found["leaks"] if (line["split"], line["within"]) == ("test", "train")}
    assert (leaks[2]["input"], leaks[2]["chains"]) == (548, 588)  # 93.2%
    assert (leaks[3]["input"], leaks[3]["chains"]) == (462, 480)  # 96.3%
    assert (leaks[2]["row"], leaks[3]["row"]) == (0, 39)
    assert (leaks[2]["first_step"], leaks[3]["first_step"]) == (524, 477)
    assert "462 (96.3%)" in text_report(found)
    worst = found["degenerate"][0]
    assert (worst["id"], worst["fault"], worst["words"]) == ("coi_2.json#142", "repetitive", 11_784)
    longest = max(line["target_words"]["100"] for line in found["lengths"])
    assert longest == 11_795
