import contextlib
from pathlib import Path

import pytest

from coi_jax.common import files, seals
from coi_jax.common.errors import UserError

ROW = {"step": 3, "loss": 0.1 + 0.2, "text": "é\u2028", "none": None}


def test_a_file_comes_back_and_each_flipped_bit_of_it_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    seals.write_sealed(path, ROW)
    assert seals.read_sealed(path) == ROW
    sound = path.read_bytes()
    for bit in range(8 * len(sound)):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            found = seals.read_sealed(path, "workdir")
            assert {**found, **ROW} == found, "whitespace, or the name of the hash"


def test_a_row_comes_back_and_another_value_is_noticed() -> None:
    row = seals.seal_row(ROW)
    assert seals.unseal_row(row, "metrics", "metrics.jsonl:1") == ROW
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: was changed since it was written; restore the line"):
        seals.unseal_row(row | {"loss": 0.3}, "metrics", "metrics.jsonl:1")


def test_what_has_no_checksum_is_taken_as_it_is(tmp_path: Path) -> None:
    files.write_json(tmp_path / "config.json", ROW)
    assert seals.read_sealed(tmp_path / "config.json") == ROW
    assert seals.unseal_row(ROW, "metrics", "metrics.jsonl:1") == ROW
