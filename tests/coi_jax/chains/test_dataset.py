import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.chain import Chain, Step
from coi_jax.chains.dataset import DatasetWriter, read_chains, read_manifest, split_path, write_chains
from coi_jax.common import files
from coi_jax.common.errors import UserError
from tests.helpers.measured import assert_megabyte_takes_little


def chain(number: int, length: int) -> Chain:
    steps = tuple(Step(f"Do {k}.", f"out {k} é") for k in range(length))
    return Chain(f"c{number}", "made", "in", "Do.", steps)


CHAINS = [chain(number, 1 + number % 3) for number in range(7)]


def write(folder: Path) -> None:
    with DatasetWriter(folder, "made here") as writer:
        for item in CHAINS:
            writer.add("train", item)
        writer.add("test", CHAINS[0])
        writer.reject({"odd": [1]}, "no output", file="a.json", row_number=3)
        writer.finish("Apache-2.0", {"seed": 0})


def test_every_row_comes_back_or_is_rejected_whole(tmp_path: Path) -> None:
    write(tmp_path / "data")
    assert list(read_chains(tmp_path / "data", "train")) == CHAINS
    assert list(read_chains(tmp_path / "data", "train", length=2)) == [c for c in CHAINS if c.length == 2]
    rejected = list(files.read_jsonl(tmp_path / "data" / "rejected.jsonl"))
    assert rejected == [{"reason": "no output", "file": "a.json", "row_number": 3, "row": {"odd": [1]}}]


def test_the_manifest_accounts_for_all(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write(folder)
    manifest = read_manifest(folder)
    assert manifest["counts"] == {"test": {"1": 1}, "train": {"1": 3, "2": 2, "3": 2}}
    assert manifest["rejected"] == {"no output": 1}
    assert manifest["sha256"] == {
        f"{n}.jsonl": files.sha256(folder / f"{n}.jsonl") for n in ("rejected", "test", "train")
    }


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    for name in ("manifest.json", "train.jsonl", "test.jsonl", "rejected.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def change_manifest(folder: Path, **changes: Any) -> None:
    files.write_json(folder / "manifest.json", files.read_object(folder / "manifest.json") | changes)


def test_a_split_that_was_changed_after_it_was_written_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write(folder)
    list(read_chains(folder, "train"))
    path = folder / "train.jsonl"
    path.write_text(path.read_text().replace("out 0", "out 9"))
    with pytest.raises(UserError, match=r"train\.jsonl: has another SHA-256 than in manifest\.json"):
        list(read_chains(folder, "train"))
    list(read_chains(folder, "test"))


@pytest.mark.parametrize("counts", [{"1": 7, "2": 2, "3": 2}, {"1": 3, "2": 2}, {}, {"1": 3, "2": 2, "3": 2, "4": 1}])
def test_counts_that_differ_from_the_rows_are_refused(tmp_path: Path, counts: dict[str, int]) -> None:
    folder = tmp_path / "data"
    write(folder)
    change_manifest(folder, counts={"train": counts})
    with pytest.raises(UserError, match=r"train\.jsonl: the numbers of chains by length are .*'1': 3"):
        split_path(folder, "train")
    change_manifest(folder, counts={"train": {"1": 3, "2": 2, "3": 2, "9": 0}})
    assert list(read_chains(folder, "train")) == CHAINS


def test_a_split_without_a_hash_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "data")
    change_manifest(tmp_path / "data", sha256={})
    with pytest.raises(UserError, match="SHA-256"):
        split_path(tmp_path / "data", "train")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"counts": [1]}, "counts: should be a valid dict"),
        ({"counts": {"train": {"2": "many"}}}, r"counts\.train\.2: should be a valid integer"),
        ({"counts": {"train": {"2": 1.0}}}, r"counts\.train\.2"),
        ({"counts": {"train": {"2": -1}}}, r"counts\.train\.2"),
        ({"counts": {"train": {"two": 1}}}, r"counts\.train\.two"),
        ({"counts": {"../train": {"2": 1}}}, r"counts\.\.\./train"),
        ({"sha256": {"train.jsonl": 3}}, r"sha256\.train\.jsonl"),
        ({"licence": None}, "licence"),
        ({"notes": []}, "notes"),
    ],
)
def test_a_manifest_has_a_schema(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    write(tmp_path / "data")
    change_manifest(tmp_path / "data", **changes)
    with pytest.raises(UserError, match=reason) as caught:
        read_manifest(tmp_path / "data")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=reason), DatasetWriter(tmp_path / "data", "made here"):
        pass


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"source": "s"}', "[" * 5000, '{"source": "a", "source": "b"}', "", "{"]
)
def test_what_is_no_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    write(tmp_path / "data")
    (tmp_path / "data" / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json") as caught:
        read_manifest(tmp_path / "data")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to(path), os.mkfifo, Path.mkdir, lambda path: None])
def test_what_stands_in_place_of_a_split_is_one_line(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write(tmp_path / "data")
    path = tmp_path / "data" / "train.jsonl"
    path.unlink()
    make(path)
    with pytest.raises(UserError, match=r"train\.jsonl") as caught:
        list(read_chains(tmp_path / "data", "train"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ['"\\ud800"', "NaN", "[" * 2000 + "]" * 2000, "1" * 5000, '{"a": 1, "a": 2}'])
def test_a_row_beyond_the_limits_of_json_is_named(tmp_path: Path, part: str) -> None:
    write(tmp_path / "data")
    path = tmp_path / "data" / "train.jsonl"
    path.write_text(path.read_text().replace('"in"', part))
    with pytest.raises(UserError, match=r"train\.jsonl:1: ") as caught:
        list(read_chains(tmp_path / "data", "train"))
    assert "\n" not in str(caught.value)


def test_null_characters_blank_lines_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    odd = Chain("odd", "made", "a\0b\u2028c", "Do.", (Step("Do.", "\0"),))
    write_chains(tmp_path / "data", {"train": [odd]}, source="s", licence="l")
    assert list(read_chains(tmp_path / "data", "train")) == [odd]
    path = tmp_path / "data" / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n" + path.read_bytes() + b"\n\n")
    change_manifest(tmp_path / "data", sha256={"train.jsonl": files.sha256(path)})
    assert list(read_chains(tmp_path / "data", "train")) == [odd]


def test_an_interrupted_write_leaves_the_old_dataset(tmp_path: Path) -> None:
    write(tmp_path / "data")
    with pytest.raises(KeyboardInterrupt), DatasetWriter(tmp_path / "data", "made here") as writer:  # noqa: PT012
        writer.add("train", CHAINS[0])
        raise KeyboardInterrupt
    assert list(read_chains(tmp_path / "data", "train")) == CHAINS
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="other files"), DatasetWriter(tmp_path, "made here"):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("split", ["../one/train", "a/b", "a\\b", "", "x\0"])
def test_a_split_cannot_leave_its_folder(tmp_path: Path, split: str) -> None:
    write(tmp_path / "one")
    before = (tmp_path / "one" / "train.jsonl").read_bytes()
    with pytest.raises(UserError, match="split"):
        write_chains(tmp_path / "two", {split: CHAINS}, source="s", licence="l")
    assert (tmp_path / "one" / "train.jsonl").read_bytes() == before
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(("input", "steps"), [("\ud800", (Step("b", "c"),)), ("x", ())])
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, input: str, steps: tuple[Step, ...]) -> None:
    with pytest.raises(UserError):
        write_chains(tmp_path / "data", {"train": [Chain("a", "s", input, "b", steps)]}, source="s", licence="l")
    assert not (tmp_path / "data").exists()


def test_a_dataset_is_replaced_only_on_request(tmp_path: Path) -> None:
    write_chains(tmp_path / "data", {"train": CHAINS}, source="s", licence="l")
    with pytest.raises(UserError, match="holds a dataset; name a new folder, or give overwrite=True"):
        write_chains(tmp_path / "data", {"train": CHAINS[:1]}, source="s", licence="l")
    assert list(read_chains(tmp_path / "data", "train")) == CHAINS
    write_chains(tmp_path / "data", {"train": CHAINS[:1]}, source="s", licence="l", overwrite=True)
    assert list(read_chains(tmp_path / "data", "train")) == CHAINS[:1]


def test_the_file_of_rejected_rows_is_no_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="split: rejected: is the file of rows that are no chains"):
        write_chains(tmp_path / "data", {"rejected": CHAINS}, source="s", licence="l")


def test_a_dataset_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    """Two commands that write into one folder at the same time: the second to end says so."""
    said = "has got another dataset while this one was made"
    with pytest.raises(UserError, match=said), DatasetWriter(tmp_path / "data", "s") as writer:  # noqa: PT012
        writer.add("train", CHAINS[0])
        writer.finish("l", {})
        write_chains(tmp_path / "data", {"train": CHAINS}, source="s", licence="l")
    assert list(read_chains(tmp_path / "data", "train")) == CHAINS


def test_an_id_names_one_chain_of_a_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="occurs more than once in split train"):
        write_chains(tmp_path / "data", {"train": [CHAINS[0], CHAINS[0]]}, source="s", licence="l")
    assert not (tmp_path / "data").exists()
    write_chains(tmp_path / "data", {"train": CHAINS[:1], "test": CHAINS[:1]}, source="s", licence="l")


def test_a_writer_refuses_an_id_that_it_has_written_and_names_it(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", "made here") as writer:
        writer.add("train", CHAINS[0])
        with pytest.raises(UserError, match=r"^id: c0: occurs more than once in split train"):
            writer.add("train", chain(0, 3))
        writer.add("test", CHAINS[0])
    assert not (tmp_path / "data").exists()


def test_reading_what_is_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such folder; check the path"):
        read_manifest(tmp_path / "none")
    write(tmp_path / "data")
    with pytest.raises(UserError, match="did you mean 'train'"):
        list(read_chains(tmp_path / "data", "trian"))


@pytest.mark.parametrize("line", ['{"id": "x"}', '{"id": ', json.dumps(CHAINS[0].row() | {"steps": None})])
def test_a_broken_row_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    write(tmp_path / "data")
    with open(tmp_path / "data" / "train.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"train\.jsonl:8"):
        list(read_chains(tmp_path / "data", "train"))


CODE = """
from coi_jax.chains.dataset import read_chains, write_chains
from coi_jax.chains.chain import Chain, Step, UserError
def run(text):
    chain = Chain("a", "s", text, text, (Step(text, text),))
    write_chains({path!r}, {{"train": [chain]}}, source="s", licence="l", overwrite=True)
    assert list(read_chains({path!r}, "train")) == [chain]
"""


def test_chains_of_a_megabyte_are_written_and_read_soon_and_in_little_memory(tmp_path: Path) -> None:
    texts = [piece * (2**20 // len(piece)) for piece in ("word ", "\\", "\n", '"', "é\u2028", "\0", "Task 1 output: ")]
    assert_megabyte_takes_little(CODE.format(path=str(tmp_path / "data")), "UserError", texts)


def test_a_manifest_that_is_a_link_to_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(UserError, match=r"^dataset folder: .*/manifest\.json: cannot be read \(Too many levels of sym"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").symlink_to(tmp_path / "gone.json")
    with pytest.raises(UserError, match=r"^dataset folder: .*/manifest\.json: no such file"):
        read_manifest(tmp_path)


def test_a_missing_folder_is_told_from_one_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^dataset folder: .*: has no manifest\.json; build or import"):
        read_manifest(tmp_path)
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match=r"^dataset folder: .*/file: is a file; name a folder, or build or import"):
        read_manifest(tmp_path / "file")
    missing = r"^config\.data\.folder: .*/none: no such folder; check the path, or build"
    with pytest.raises(UserError, match=missing):
        read_manifest(tmp_path / "none", "config.data.folder")
    with pytest.raises(UserError, match=missing):
        split_path(tmp_path / "none", "train", "config.data.folder")
