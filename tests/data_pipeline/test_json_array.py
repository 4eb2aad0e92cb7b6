import contextlib
import gc
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coi_jax.common.errors import UserError
from data_pipeline import json_array
from data_pipeline.json_array import read_array
from tests.helpers.measured import assert_megabyte_takes_little

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(VALUES, max_size=5),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
    chunk=st.integers(1, 40),
)
@example(rows=[0.5, 1e30, -2e-30], indent=None, ascii_only=True, chunk=1)
def test_reads_what_json_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], indent: int | None, ascii_only: bool, chunk: int
) -> None:
    monkeypatch.setattr(json_array, "CHUNK_BYTES", chunk)
    path = tmp_path / "rows.json"
    path.write_bytes(json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode("utf-8"))
    assert list(read_array(path)) == rows


def test_holds_one_row_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [{"number": n, "text": "x" * 1000} for n in range(2000)]
    path.write_text(json.dumps(rows) + " and then it breaks")
    found = read_array(path)
    assert [next(found) for _ in rows] == rows
    with pytest.raises(UserError, match="text after"):
        next(found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b'{"rows": []}', "is an object whose key rows holds an array; write that array into a file of its own"),
        (b'{"meta": {"tags": [1]}, "n": 2, "rows": [{"a": 1}], "b": []}', "is an object whose key rows holds an array"),
        (b'{"rows": [{"a": 1}, ', "is an object whose key rows holds an array"),
        (b'{"meta": {"tags": [1]}}', "is not a JSON array of rows; if each line is a row, name the file .jsonl"),
        (b'{"a": [1]}\n{"a": [2]}\n', "is not a JSON array of rows; if each line is a row, name the file .jsonl"),
        (b"nonsense", "is not a JSON array of rows"),
        (b'[{"a": 1}, {"a": ', "element 2 of.*cut short"),
        (b'[{"a": 1}, ', "element 2 of.*cut short"),
        (b'[{"a": 1}', "after element 1 of.*cut short"),
        (b"[1 2]", "after element 1 of"),
        (b"[1, 2,]", "element 3 of"),
        (b"[nonsense]", "element 1 of"),
        (b"[1, NaN]", "element 2 of.*not JSON"),
        (b"[Infinity]", "element 1 of.*not JSON"),
        (b'["caf\xe9"]', "byte 5.*not UTF-8"),
        (b'["cut in a letter \xc3', "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'[1, {"a": 1, "a": 2}]', "element 2 of.*twice"),
        (b"[1, 2, 1" + b"0" * 5000 + b"]", "element 3 of.*5001 digits"),
    ],
)
def test_what_is_not_a_whole_array_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        list(read_array(path, "release file"))
    assert error.value.field == "release file"
    assert str(path) in str(error.value)


def test_half_a_surrogate_pair_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('["\\ud800"]')
    assert list(read_array(path, allow_surrogates=True)) == ["\ud800"]
    with pytest.raises(UserError, match=r"element 1 of.*half of a surrogate pair"):
        list(read_array(path))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert list(read_array(path)) == [1]


def test_a_reader_that_stops_early_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": "x" * 1000}] * 200))
    for content in (path.read_bytes(), b"[" * 1000, b'["\xff"]'):
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            found = read_array(path)
            next(found)
            del found
    gc.collect()
    assert capsys.readouterr().err == ""


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        list(read_array(tmp_path / "none.json"))


PIECES = ["1,", "\n", '{"a":1},', "[", '{"a":', '"']
CODE = """
from coi_jax.common.errors import UserError
from data_pipeline.json_array import read_array
def run(text):
    with open({path!r}, "w") as file:
        file.write(text)
    for _ in read_array({path!r}):
        pass
"""


def test_a_megabyte_of_anything_is_read_or_refused_soon_and_in_little_memory(tmp_path: Path) -> None:
    texts = [f"[{piece * (2**20 // len(piece))}0]" for piece in PIECES]
    assert_megabyte_takes_little(CODE.format(path=str(tmp_path / "rows.json")), "UserError", texts)
