from functools import cache
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.vocabulary import (
    ByteVocabulary,
    SentencePieceVocabulary,
    load_vocabulary,
    read_sentencepiece,
    trained_path,
)
from data_pipeline.tasks.sentencepiece_training import OPTIONS, train
from tests.helpers.paths import QUICKSTART

PHRASES = ["Sort the words in reverse order.", "pear apple fig 1234 56", "Task 1 output and task 2 input: a, b"]
LINES = [f"{phrase} {number * 37}" for number in range(30) for phrase in PHRASES]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@cache
def trained() -> SentencePieceVocabulary:
    return SentencePieceVocabulary(train(LINES, 300), "trained")


@cache
def llama_like() -> bytes:
    """A model with Llama's ids: unknown 0, begin 1, end 2, no pad."""
    return train(LINES, 300, OPTIONS | {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2})


@pytest.mark.parametrize("make", [ByteVocabulary, trained])
@settings(max_examples=200)
@given(text=TEXTS | st.text(" \n\t▁a1", max_size=20))
def test_any_text_comes_back_exactly(make: type[Vocabulary], text: str) -> None:
    vocabulary = make()
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    special = {vocabulary.pad_id, vocabulary.eos_id, vocabulary.bos_id}
    assert all(0 <= token < vocabulary.size and token not in special for token in ids)


@pytest.mark.parametrize("make", [ByteVocabulary, trained])
def test_decode_stops_at_the_end_and_leaves_out_pads(make: type[Vocabulary]) -> None:
    vocabulary = make()
    ids = vocabulary.encode("sort")
    assert vocabulary.decode([vocabulary.pad_id, *ids, vocabulary.eos_id, *ids]) == "sort"
    assert vocabulary.decode([]) == ""
    assert vocabulary.decode([*ids, vocabulary.size + 5][: len(ids)]) == "sort"


def test_bytes_are_numbered_as_in_byt5() -> None:
    vocabulary = ByteVocabulary()
    assert vocabulary.encode("aé") == [100, 198, 172]
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.bos_id, vocabulary.size) == (0, 1, None, 259)
    assert vocabulary.decode([198]) == "\N{REPLACEMENT CHARACTER}"


def test_trained_ids_are_those_of_t5_and_digits_stand_alone() -> None:
    vocabulary = trained()
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.bos_id, vocabulary.size) == (0, 1, None, 300)
    assert [vocabulary.decode([token]) for token in vocabulary.encode("1234")] == ["1", "2", "3", "4"]


def test_a_model_without_a_pad_piece_pads_with_unknown() -> None:
    vocabulary = SentencePieceVocabulary(llama_like(), "llama")
    assert (vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id) == (0, 1, 2)
    ids = vocabulary.encode("pear apple")
    assert vocabulary.decode([1, *ids, 2, 0]) == "pear apple"


def test_a_vocabulary_is_known_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.model", tmp_path / "b.model"
    for path in (first, second):
        path.write_bytes(train(LINES, 300))
    assert read_sentencepiece(first).fingerprint == read_sentencepiece(second).fingerprint
    second.write_bytes(llama_like())
    assert read_sentencepiece(first).fingerprint != read_sentencepiece(second).fingerprint


def test_a_config_names_its_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "words.model"
    path.write_bytes(train(LINES, 300))
    by_file = {"vocabulary.kind": "sentencepiece", "vocabulary.file": str(path)}
    assert load_vocabulary(load_config(QUICKSTART, by_file)).name == "words"
    assert load_vocabulary(load_config(QUICKSTART, {}), kept=path).size == 300
    by_bytes = {"vocabulary.kind": "bytes"}
    assert load_vocabulary(load_config(QUICKSTART, by_bytes)).name == "bytes"


def test_a_model_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.model"
    with pytest.raises(UserError, match="no such file"):
        read_sentencepiece(path)
    other_text = (
        b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n\x0c\n\x03\x9es>\x15\x00\x00\x00\x00\x18\x03"  # no UTF-8
    )
    for content in (b"", b"not a model", llama_like()[:500], other_text):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a SentencePiece model"):
            read_sentencepiece(path)
    path.write_bytes(train(LINES, 300, OPTIONS | {"eos_id": -1, "unk_id": 1}))
    with pytest.raises(UserError, match="no end-of-sequence piece"):
        read_sentencepiece(path)
    assert sentencepiece.SentencePieceProcessor(model_file=str(path)).eos_id() == -1


def test_a_trained_vocabulary_of_a_missing_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        trained_path(load_config(QUICKSTART, {"data.folder": str(tmp_path)}))
