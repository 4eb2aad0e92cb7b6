"""Messages of one line, whatever they quote."""

import pytest

from coi_jax.common.errors import LONGEST_FIELD, LONGEST_HINT, UserError, one_line
from coi_jax.serving.errors import ApiError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a \r\n  b", "a b"),
        ("red \x1b[31m", r"red \x1b[31m"),
        ("\u2028\x85\u202e", r"\u2028\x85\u202e"),
        ("half \ud800", r"half \ud800"),
        ("naïve 日本", "naïve 日本"),
    ],
)
def test_what_a_message_quotes_stays_on_its_line(text: str, shown: str) -> None:
    assert one_line(text, 100) == shown
    assert str(UserError(f"config.{text}", 1, text)) == f"config.{shown}: 1: {shown}"
    assert ApiError(400, text).body()["error"]["message"] == shown


def test_a_long_quotation_is_cut_in_its_middle() -> None:
    error = UserError("x" * 9999, 1, "y" * 9999 + "; correct it")
    assert len(str(error)) < LONGEST_FIELD + LONGEST_HINT + 20
    assert str(error).endswith("yyy; correct it")
