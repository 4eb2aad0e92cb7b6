import json
from pathlib import Path

import pytest

from coi_jax.chains.chain import Chain, Step
from coi_jax.chains.dataset import DatasetWriter, read_chains, read_manifest
from coi_jax.common import files
from coi_jax.common.errors import UserError


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


def test_reading_what_is_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json"):
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
