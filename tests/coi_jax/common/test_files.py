import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coi_jax.common import files
from coi_jax.common.errors import UserError, nearest, shorten
from coi_jax.common.storage import AppendFile, atomic_file
from tests.helpers.file_limits import largest_file


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    files.write_text(path, "before")
    with pytest.raises(OSError, match="full"), atomic_file(path) as file:  # noqa: PT012
        file.write("half of it")
        raise OSError(28, "disk full")
    assert path.read_text() == "before"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_file_that_may_not_grow_is_named(tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(OSError, match="File too large") as caught:
        files.write_text(tmp_path / "out.json", "x" * 2000)
    assert caught.value.filename == str(tmp_path / "out.json")
    assert not list(tmp_path.iterdir())


def test_lines_for_which_there_is_no_room_name_the_file(tmp_path: Path) -> None:
    with AppendFile(tmp_path / "rows.jsonl") as file, largest_file(10):
        file.write("short\n")
        with pytest.raises(OSError, match="File too large") as caught:
            file.write("a longer line\n")
    assert caught.value.filename == str(tmp_path / "rows.jsonl")


def test_a_small_file_is_read_with_little_memory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    tracemalloc.start()
    try:
        files.read_json(tmp_path / "config.json")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    value = {"words": ["é", "\n"], "number": 1.5}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    files.write_bytes(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert files.sha256(tmp_path / "b") == "06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b'{"a": [1, 2', "cut short"), (b'{"a": "\xff"}', "byte 7 is not UTF-8")],
)
def test_a_bad_json_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match="is a folder"):
        files.read_json(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        list(files.read_jsonl(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("line", "message"), [(b'{"a": 1', "cut short"), (b"[1]", "an array"), (b'{"a": "\xe9"}', "UTF-8")]
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 0}\n' + line + b"\n")
    rows = files.read_jsonl(path)
    assert next(rows) == {"a": 0}
    with pytest.raises(UserError, match=message) as caught:
        next(rows)
    assert "rows.jsonl:2" in str(caught.value)


@given(kept=st.lists(st.dictionaries(st.text(), st.integers())), cut=st.integers(min_value=1))
def test_a_torn_last_line_is_dropped(
    tmp_path_factory: pytest.TempPathFactory, kept: list[dict[str, int]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "rows.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for row in kept:
            files.append_jsonl(file, row)
        torn = json.dumps({"torn": "line"})
        file.write(torn[: 1 + cut % len(torn)])
    files.recover_jsonl(path)
    assert list(files.read_jsonl(path)) == kept


def test_recovering_a_file_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    files.recover_jsonl(tmp_path / "none.jsonl")
    assert not list(tmp_path.iterdir())


def test_digest_ignores_the_order_of_keys() -> None:
    assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})


def test_a_long_value_is_shortened_to_one_line() -> None:
    text = str(UserError("field", "x\n" * 1000, "mend it"))
    assert "\n" not in text
    assert len(text) < 500
    assert shorten(3) == "3"


def test_a_value_that_cannot_be_written_is_named_by_its_type() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]

    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError

    assert [str(UserError("texts", value, "give text")) for value in (nested, Silent())] == [
        "texts: <list>: give text",
        "texts: <Silent>: give text",
    ]


def test_nearest_names() -> None:
    assert "did you mean 'adamw'" in nearest("adam", ["adamw", "adafactor"])
    assert nearest("xyz", ["adamw", "adafactor"]) == "unknown; one of adamw, adafactor"
    many = [f"name_{number}" for number in range(100)]
    assert nearest("xyz7", many).startswith("unknown; the nearest known names are name_7, ")
    assert nearest("xyz7", many).count(",") == 4


def test_blank_lines_and_a_byte_order_mark_are_skipped_and_lines_end_with_a_newline_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "1"}\r\n\n \t\n' + '{"a": "x\u2028y\x85z"}\n\n'.encode())
    assert list(files.read_placed_jsonl(path)) == [(f"{path}:1", {"a": "1"}), (f"{path}:4", {"a": "x\u2028y\x85z"})]
    (tmp_path / "value.json").write_bytes(b'\xef\xbb\xbf\n{"a": 1}\n\n')
    assert files.read_object(tmp_path / "value.json") == {"a": 1}


def test_an_object_is_read_and_nothing_else(tmp_path: Path) -> None:
    files.write_json(tmp_path / "list.json", [])
    with pytest.raises(UserError, match="holds an array where a JSON object is expected"):
        files.read_object(tmp_path / "list.json")


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_loop, "symbolic links"),
        (os.mkfifo, "a pipe or a device"),
        (Path.mkdir, "is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
        (lambda path: path.symlink_to("nowhere"), "no such file"),
    ],
)
def test_what_is_no_file_is_one_line_and_never_waits(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "data.jsonl"
    make(path)
    for read in (
        files.read_text,
        files.read_json,
        files.read_bytes,
        files.sha256,
        lambda path: list(files.read_jsonl(path)),
    ):
        with pytest.raises(UserError, match=reason):
            read(path)


def test_a_row_that_is_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 20)
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n' + json.dumps({"a": "x" * 20}))
    with pytest.raises(UserError, match=r"rows.jsonl:2: is longer"):
        list(files.read_jsonl(tmp_path / "rows.jsonl"))
    monkeypatch.setattr(files, "MAX_BYTES", 20)
    with pytest.raises(UserError, match=r"rows.jsonl: is longer"):
        files.read_text(tmp_path / "rows.jsonl")
