import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import MAX_DEPTH, MAX_DIGITS, JsonError, is_utf8, parse_field, parse_json, parse_value
from tests.helpers.measured import assert_megabyte_takes_little

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=VALUES, indent=st.sampled_from([None, 2]), ascii_only=st.booleans(), mark=st.sampled_from(["", "\ufeff"]))
def test_reads_what_json_writes(value: object, indent: int | None, ascii_only: bool, mark: str) -> None:
    text = f"{mark} \n{json.dumps(value, indent=indent, ensure_ascii=ascii_only)}\n\n"
    assert parse_json(text) == value
    assert parse_json(text.encode("utf-8")) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"\xef\xbb\xbf", "not JSON"),
        (b"\x00\x00\x00", "not JSON"),
        (b'{"a": "\x00"}', "not JSON .Invalid control character"),
        (b'{"a": 1', "cut short"),
        (b'{"a": 1} {"b": 2}', 'text after the value: {"b": 2}'),
        (b"[01]", "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "byte 7 is not UTF-8"),
        (b"[NaN]", "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"[1e999]", "too large"),
        (b"[-1e999]", "too large"),
        (b"[1" + b"0" * 5000 + b"]", "5001 digits"),
        (b"[0." + b"1" * 5000 + b"]", "5002 digits"),
        (b'{"a": 1, "b": 2, "a": 3}', "has the key a twice"),
        (b'[{"x": {"": 1, "": 1}}]', "twice"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a\\uDFFF": 1}', "half of a surrogate pair"),
        (b'["\\ude00\\ud83d"]', "half of a surrogate pair"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested too deep"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested too deep"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep"),
    ],
    ids=lambda given: repr(given[:20]),
)
def test_what_cannot_be_used_has_a_reason_of_one_line(text: bytes, reason: str) -> None:
    with pytest.raises(JsonError, match=reason) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_is_within_the_limits_is_read() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deep)) == deep
    whole = "9" * MAX_DIGITS
    assert math.isfinite(float(parse_json(whole)))
    assert parse_json('"' + "[{" * 1000 + '"') == "[{" * 1000
    assert parse_json('["\\ud83d\\ude00", "\\u0000", "\\\\ud800"]') == ["😀", "\0", "\\ud800"]


def test_other_line_separators_are_text() -> None:
    assert parse_json('"a\u2028b\u2029c\x85d"') == "a\u2028b\u2029c\x85d"


def test_a_value_within_a_text_may_keep_half_a_surrogate_pair() -> None:
    assert parse_value('["\\ud800"] tail', 0, allow_surrogates=True) == (["\ud800"], 10)
    assert not is_utf8(["\ud800"])
    assert is_utf8(["😀"])


def test_the_place_of_half_a_surrogate_pair_is_named() -> None:
    with pytest.raises(JsonError, match=r"^rows\.1\.input: holds half"):
        parse_json('{"rows": [{"input": "\\ud83d\\ude00"}, {"input": "\\ud800"}]}')


def test_the_error_of_a_file_names_its_line() -> None:
    with pytest.raises(UserError, match=r"^config: run.json:3: not JSON"):
        parse_field(b'{\n"a": 1,\n}', "config", "run.json")
    with pytest.raises(UserError, match=r"^config: run.json:4: not JSON .text after"):
        parse_field(b'{\n"a": 1\n}\n{}', "config", "run.json")


PIECES = ["[", "[],", '{"a":', '{"a":1},', '"\\ud83d",', "1e9,", "\\", "1", "0.", '"\\u0000",', "\n"]


def test_a_megabyte_of_anything_is_read_or_refused_soon_and_in_little_memory() -> None:
    texts = [frame.format(piece * (2**20 // len(piece))) for piece in PIECES for frame in ("{}", "[{}0]")]
    assert_megabyte_takes_little(
        "from coi_jax.common.json_reader import JsonError, parse_json as run", "JsonError", texts
    )
