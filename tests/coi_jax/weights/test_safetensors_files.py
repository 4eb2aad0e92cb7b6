"""Safetensors files against the format's own library, local and in a (simulated) bucket, whole and broken."""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from coi_jax.common.errors import UserError
from coi_jax.common.storage import Folder, atomic_folder
from coi_jax.weights.safetensors_files import INDEX, SINGLE, TensorFolder, TensorSpec, write_tensors

RANDOM = np.random.default_rng(0)
TENSORS = {
    "a.weight": RANDOM.normal(size=(3, 5)).astype(np.float32),
    "b.weight": RANDOM.normal(size=(7,)).astype(ml_dtypes.bfloat16),
    "c.weight": RANDOM.normal(size=(2, 2, 2)).astype(np.float16),
    "d.weight": RANDOM.normal(size=(1, 1)),
    "é": np.asarray(3, np.float32),
}
SPECS = [TensorSpec(key, tensor.shape, tensor.dtype) for key, tensor in TENSORS.items()]


@pytest.fixture(params=["local", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "model") if request.param == "local" else f"{request.getfixturevalue('bucket')}/model"


def write(url: str, largest: int) -> Folder:
    with atomic_folder(url, marker="config.json") as folder:
        write_tensors(folder, SPECS, TENSORS.__getitem__, largest)
        (folder / "config.json").write_text("{}")
    return Folder(url, "src")


def assert_same(found: dict[str, np.ndarray]) -> None:
    assert set(found) == set(TENSORS)
    for key, tensor in TENSORS.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].shape == tensor.shape
        assert found[key].tobytes() == tensor.tobytes()


@pytest.mark.parametrize(("largest", "files"), [(10**9, 1), (60, 2), (20, 4), (1, 5)])
def test_what_is_written_is_read_again(url: str, largest: int, files: int) -> None:
    folder = TensorFolder(write(url, largest))
    assert len(folder.files) == files
    assert_same({key: folder.read(key) for key in folder.entries})
    assert folder.folder.exists(INDEX) == (files > 1)
    assert folder.identity() == TensorFolder(folder.folder).identity()


def test_the_library_reads_what_is_written_and_the_other_way_round(tmp_path: Path) -> None:
    write(str(tmp_path / "ours"), 60)
    paths = sorted((tmp_path / "ours").glob("*.safetensors"))
    assert [path.name for path in paths] == [f"model-{n:05}-of-00002.safetensors" for n in (1, 2)]
    assert_same({key: value for path in paths for key, value in load_file(path).items()})
    index = json.loads((tmp_path / "ours" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    (tmp_path / "theirs").mkdir()
    save_file(TENSORS, tmp_path / "theirs" / SINGLE, metadata={"format": "pt"})
    folder = TensorFolder(Folder(str(tmp_path / "theirs"), "src"))
    assert_same({key: folder.read(key) for key in folder.entries})


def test_nothing_is_left_of_a_folder_that_could_not_be_written(url: str) -> None:
    def read(key: str) -> np.ndarray:
        if key == "c.weight":
            raise OSError(28, "No space left on device")
        return TENSORS[key]

    with pytest.raises(OSError, match="No space"), atomic_folder(url, marker="config.json") as folder:
        write_tensors(folder, SPECS, read, 60)
    assert not Folder(url, "out").exists()
    assert not folder.exists()


def test_a_folder_that_is_there_is_not_overwritten(url: str) -> None:
    folder = write(url, 10**9)
    already = pytest.raises(UserError, match=r"out: .*: is there already; name a new folder")
    with already, atomic_folder(url, marker="config.json"):
        raise AssertionError
    assert TensorFolder(folder).entries


def broken(data: bytes, how: str) -> bytes:
    """A safetensors file that something happened to."""
    length: int = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + length]
    cases: dict[str, bytes] = {
        "empty": b"",
        "cut in its length": data[:5],
        "cut in its header": data[: 8 + length // 2],
        "cut in its tensors": data[:-1],
        "a web page": b"<html><head><title>404 Not Found</title></head></html>",
        "no JSON": data[:8] + b"x" * length + data[8 + length :],
        "no object": struct.pack("<Q", 2) + b"[]",
        "a shape of other bytes": data[:8] + header.replace(b"[3,5]", b"[3,6]") + data[8 + length :],
        "a dtype of another world": data[:8] + header.replace(b'"F16"', b'"F4X"') + data[8 + length :],
        "integers": data[:8] + header.replace(b'"F16"', b'"I16"') + data[8 + length :],
    }
    return cases[how]


def test_tensors_that_overlap_are_refused_by_the_library(tmp_path: Path) -> None:
    folder = write(str(tmp_path / "model"), 10**9)
    path = tmp_path / "model" / SINGLE
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["copy"] = header["a.weight"]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    with pytest.raises(UserError, match="is not a valid safetensors file"):
        TensorFolder(folder)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("empty", "is no whole safetensors file (0 bytes)"),
        ("cut in its length", "is no whole safetensors file (5 bytes)"),
        ("cut in its header", "is no whole safetensors file"),
        ("cut in its tensors", "is cut short: "),
        ("a web page", "is no whole safetensors file"),
        ("no JSON", "has a header that is not of safetensors"),
        ("no object", "has a header that is not of safetensors"),
        ("a shape of other bytes", "has a header that is not of safetensors"),
        ("a dtype of another world", "c.weight is F4X, of F64, F32, F16, BF16"),
        ("integers", "c.weight is I16, of F64, F32, F16, BF16"),
    ],
)
def test_broken_files_are_one_line(tmp_path: Path, how: str, said: str) -> None:
    folder = write(str(tmp_path / "model"), 10**9)
    path = tmp_path / "model" / SINGLE
    path.write_bytes(broken(path.read_bytes(), how))
    with pytest.raises(UserError) as caught:
        TensorFolder(folder)
    assert said in str(caught.value)
    assert f"src: {path}" in str(caught.value)
    assert "\n" not in str(caught.value)


def rewritten(data: bytes, change: Callable[[str], str], padding: bytes = b"") -> bytes:
    """A safetensors file with another header."""
    length = struct.unpack("<Q", data[:8])[0]
    text = change(data[8 : 8 + length].decode()).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :] + padding


def with_entry(key: str, **changes: Any) -> Callable[[str], str]:
    def change(text: str) -> str:
        header = json.loads(text)
        header[key] = header.get(key, header["a.weight"]) | changes
        return json.dumps(header)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_entry("copy"), "is not a valid safetensors file (copy overlaps a.weight)"),
        (with_entry("a.weight", shape=[-3, -5]), "has a header that is not of safetensors"),
        (with_entry("a.weight", shape=[15.0]), "has a header that is not of safetensors"),
        (with_entry("a.weight", shape=[True, 15]), "has a header that is not of safetensors"),
        (with_entry("a.weight", shape=["15"]), "has a header that is not of safetensors"),
        (with_entry("a.weight", shape=[1] * 70 + [15]), "has a header that is not of safetensors"),
        (with_entry("a.weight", data_offsets=[0, 0], shape=[0, 2**63]), "has a header that is not of safetensors"),
        (with_entry("a.weight", data_offsets=[60, 0]), "has a header that is not of safetensors"),
        (with_entry("a.weight", data_offsets=[-60, 0]), "has a header that is not of safetensors"),
        (with_entry("a.weight", data_offsets=[0]), "has a header that is not of safetensors"),
        (with_entry("a.weight", dtype=["F32"]), "has a header that is not of safetensors"),
        (lambda text: text.replace("[3,5]", "[1e999]"), "not of safetensors (the number 1e999 is too large)"),
        (lambda text: text.replace("[3,5]", "[Infinity]"), "not of safetensors (Infinity is not JSON)"),
        (lambda text: text.replace("[3,5]", f"[{'9' * 5000}]"), "a number of 5000 digits is too long"),
        (lambda text: text.replace("[3,5]", "[" * 5000), "nested too deep"),
        (lambda text: text.replace('"b.weight"', '"a.weight"'), "has the key a.weight twice"),
        (lambda text: text.replace("b.weight", "b\\ud800"), "half of a surrogate pair"),
    ],
)
def test_forged_headers_are_refused(url: str, change: Callable[[str], str], said: str) -> None:
    """In a bucket too, where the library does not read them."""
    folder = write(url, 10**9)
    folder.at(SINGLE).write_bytes(rewritten(folder.read(SINGLE), change))
    with pytest.raises(UserError) as caught:
        TensorFolder(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_no_tensor_has_are_refused(url: str) -> None:
    folder = write(url, 10**9)
    data = folder.read(SINGLE)
    folder.at(SINGLE).write_bytes(data + b"more")
    with pytest.raises(UserError, match="4 bytes too many"):
        TensorFolder(folder)
    folder.at(SINGLE).write_bytes(rewritten(data, lambda text: json.dumps({"é": json.loads(text)["é"]})))
    with pytest.raises(UserError, match="a gap before é"):
        TensorFolder(folder)


def test_a_tensor_in_two_files_is_refused(url: str) -> None:
    folder = write(url, 60)
    names = TensorFolder(folder).files
    folder.at(names[1]).write_bytes(folder.read(names[0]))
    with pytest.raises(UserError, match=f"{names[1]}: a.weight is in {names[0]} too"):
        TensorFolder(folder)


@pytest.mark.parametrize("table", [{"a": 3}, {"a": ["model.safetensors"]}, [], "text"])
def test_an_index_that_names_no_files_is_refused(tmp_path: Path, table: object) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": table}))
    with pytest.raises(UserError, match="has no weight_map"):
        TensorFolder(Folder(str(tmp_path), "src"))


def test_folders_that_are_not_whole(tmp_path: Path) -> None:
    def said(folder: Path) -> str:
        with pytest.raises(UserError) as caught:
            TensorFolder(Folder(str(folder), "src"))
        return str(caught.value)

    assert "no such folder; check the path" in said(tmp_path / "none")
    (tmp_path / "model").mkdir()
    assert f"has neither {SINGLE} nor {INDEX}" in said(tmp_path / "model")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "its other weight files are never read: save it with safe_serialization=True" in said(tmp_path / "model")
    (tmp_path / "model" / INDEX).write_text('{"weight_map": {}}')
    assert "has no weight_map" in said(tmp_path / "model")
    (tmp_path / "model" / INDEX).write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert "names model-00001-of-00002.safetensors, not there; fetch the folder again" in said(tmp_path / "model")
    (tmp_path / "model" / INDEX).write_text('{"weight_map"')
    assert "not JSON" in said(tmp_path / "model")


def test_urls_that_nothing_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for url, said in {"gs://bucket/x": "Please install gcsfs", "abc://bucket/x": "name a local path"}.items():
        with pytest.raises(UserError, match=rf"src: {url}: cannot be reached[:;] {said}"):
            Folder(url, "src")


def test_two_tensors_that_must_be_one(tmp_path: Path) -> None:
    tensors = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.arange(6.0).reshape(2, 3),
        "c": np.arange(6.0),
        "d": np.arange(1.0, 7.0).reshape(2, 3),
    }
    save_file(tensors, tmp_path / SINGLE)
    folder = TensorFolder(Folder(str(tmp_path), "src"))
    folder.check_equal("a", "b")
    for other in "cd":
        with pytest.raises(UserError, match="differ, though the config says that they are one"):
            folder.check_equal("a", other)


def test_an_index_may_be_older_than_the_files(tmp_path: Path) -> None:
    """It names files of another split, or files that were merged since."""
    folder = write(str(tmp_path / "model"), 60)
    path = tmp_path / "model" / INDEX
    index = json.loads(path.read_text())
    stale = dict.fromkeys(index["weight_map"], "model-00003-of-00003.safetensors")
    path.write_text(json.dumps({"weight_map": stale}))
    found = TensorFolder(folder)
    assert_same({key: found.read(key) for key in found.entries})
    path.unlink()
    assert TensorFolder(folder).entries == found.entries
    save_file(TENSORS, tmp_path / "model" / SINGLE)  # no metadata
    path.write_text(json.dumps(index))
    merged = TensorFolder(folder)
    assert merged.files == [SINGLE]
    assert_same({key: merged.read(key) for key in merged.entries})
    (tmp_path / "model" / SINGLE).unlink()
    path.write_text(json.dumps({"weight_map": stale}))
    (tmp_path / "model" / found.files[0]).unlink()
    with pytest.raises(UserError, match=r"names model-00003-of-00003.safetensors, not there"):
        TensorFolder(folder)


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    tensor = np.asarray([1.0, np.nan], np.float32)
    with pytest.raises(UserError, match="weights: a: holds numbers that are not finite"):
        write_tensors(tmp_path, [TensorSpec("a", (2,), tensor.dtype)], lambda _: tensor, 60)
