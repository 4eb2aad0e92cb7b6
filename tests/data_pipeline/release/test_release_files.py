import subprocess
from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from data_pipeline.release import release_files
from data_pipeline.release.release_files import CHECKSUMS, FILES, Form, data_folder, git_blob, present


def test_every_published_file_is_known_once() -> None:
    assert sorted(file.path for file in FILES) == sorted(CHECKSUMS)


def test_a_union_comes_after_the_files_that_it_repeats() -> None:
    for place, union in enumerate(FILES):
        if union.union:
            same = [file for file in FILES if file.split == union.split and not file.union]
            assert all(FILES.index(file) < place for file in same)
            assert {length for file in FILES[:place] for length in file.lengths} >= set(union.lengths)


def test_each_split_has_its_files() -> None:
    by_split = {split: [file.source for file in FILES if file.split == split] for split in {f.split for f in FILES}}
    assert len(by_split["bbh"]) == 27
    assert by_split["test"] == ["coi2_test.json", "coi3_test.json"]
    assert by_split["train"] == ["coi_1.json", "coi_2.json", "coi_3.json", "coi_12.json", "coi_123.json"]
    assert len(by_split["summarized"]) == len(by_split["irrelevant"]) == 4
    assert [file.split for file in FILES if file.form is Form.SUMMARY] == ["wikilingua_en_fr", "wikilingua_es_en"]


@pytest.mark.parametrize("content", [b"", b"[]", b"text\r\n" * 999, bytes(range(256))])
def test_the_checksum_is_git_s(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    command = ["git", "hash-object", "--no-filters", str(path)]
    assert git_blob(path) == subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("inner", ["data/train", "data/test", "train", "test"])
def test_the_data_folder_of_a_repository_or_itself(tmp_path: Path, inner: str) -> None:
    (tmp_path / inner).mkdir(parents=True)
    assert data_folder(tmp_path) == (tmp_path / inner).parent


def test_a_folder_without_the_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither"):
        data_folder(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        data_folder(tmp_path / "none")


def test_unknown_files_are_reported(tmp_path: Path) -> None:
    for name in ("train/coi_12.json", "train/coi_2.json", "train/coi_9.json", "test/bigbenchhard/test_snarks", "notes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    known, unknown = present(tmp_path)
    assert [file.path for file in known] == ["train/coi_2.json", "train/coi_12.json", "test/bigbenchhard/test_snarks"]
    assert unknown == ["notes", "train/coi_9.json"]


def test_the_shared_copy_is_the_pinned_commit(release_folder: Path) -> None:
    known, unknown = present(data_folder(release_folder))
    assert not unknown
    assert [file.path for file in known if git_blob(release_folder / "data" / file.path) != CHECKSUMS[file.path]] == []
    assert release_files.COMMIT in release_files.BASE_URL
