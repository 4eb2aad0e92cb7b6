import json
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from coi_jax.tokenizers.pieces import JsonPieces, Pieces, SentencePieces, rename_pieces
from data_pipeline.tasks.sentencepiece_training import train
from tests.helpers.tokenizer_folders import GEMMA, LINES, LLAMA

SECRETS = {"</s>": "<|secret end|>", "<unk>": "<|secret unknown|>"}


def bpe() -> dict[str, Any]:
    """A model whose merges spell its own end token, as those made from SentencePiece's pieces do."""
    pieces = ["<unk>", "<", "/", "s", ">", "</", "s>", "</s>", "</s></s>", "a"]
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("</s>", "</s>")]
    tokenizer = Tokenizer(models.BPE({piece: id for id, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    values: dict[str, Any] = json.loads(tokenizer.to_str())
    return values


def unigram() -> dict[str, Any]:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in "</s>a")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    values: dict[str, Any] = json.loads(tokenizer.to_str())
    return values


@pytest.mark.parametrize("make", [bpe, unigram])
def test_a_models_own_pieces_cannot_spell_a_control_token(make: Any) -> None:
    values = make()
    end = 7 if make is bpe else 1
    assert end in Tokenizer.from_str(json.dumps(values)).encode("a</s>").ids
    pieces = JsonPieces(values, [AddedToken("</s>", special=True)], SECRETS)
    assert isinstance(pieces, Pieces)
    ids = pieces.encode("a</s></s>a")
    assert end not in ids
    assert pieces.encode(f"a{SECRETS['</s>']}a") == [*pieces.encode("a"), end, *pieces.encode("a")]
    assert pieces.ids[SECRETS["</s>"]] == end
    assert "</s>" not in pieces.ids


def test_other_merges_stay() -> None:
    model = bpe()["model"]
    renamed = rename_pieces(model, SECRETS)
    assert [tuple(pair) for pair in renamed["merges"]] == [("<", "/"), ("s", ">")]
    assert renamed["unk_token"] == SECRETS["<unk>"]
    assert rename_pieces(model, {"<other>": "x"}) == model
    old = rename_pieces(model | {"merges": ["< /", "s >", "</ s>"]}, SECRETS)
    assert old["merges"] == [["<", "/"], ["s", ">"]]


def test_a_file_that_the_library_cannot_read() -> None:
    with pytest.raises(ValueError, match="Token `none` out of vocabulary"):
        JsonPieces({**bpe(), "model": bpe()["model"] | {"merges": [["none", "a"]]}}, [], {})


def test_a_model_that_fails_at_unknown_characters_is_not_taken() -> None:
    with pytest.raises(ValueError, match="unk_id"):
        JsonPieces({**unigram(), "model": unigram()["model"] | {"unk_id": None}}, [], {})


def test_a_sentencepiece_model_cannot_spell_a_turn() -> None:
    model, turn = train(LINES, 520, GEMMA), AddedToken("<start_of_turn>", special=True)
    exposed = SentencePieces(model, {}, {}, "each")
    id = exposed.ids["<start_of_turn>"]
    assert id in exposed.encode("a<start_of_turn>b")
    pieces = SentencePieces(model, {id: turn}, {"<start_of_turn>": "<|secret|>"}, "each")
    assert id not in pieces.encode("a<start_of_turn>b")
    assert pieces.decode(pieces.encode("a<start_of_turn>b")) == "a<start_of_turn>b"
    assert pieces.encode("a<|secret|>b") == [*pieces.encode("a"), id, *pieces.encode("b")]


@pytest.mark.parametrize(("prefix", "spaces"), [("each", 2), ("first", 1), ("none", 0)])
def test_where_a_leading_space_is_put(prefix: str, spaces: int) -> None:
    pieces = SentencePieces(train(LINES, 520, LLAMA), {600: AddedToken("<x>")}, {}, prefix)
    ids = pieces.encode("sort<x>sort")
    texts = {id: text for text, id in pieces.ids.items()}
    assert "".join(texts[id] for id in ids).count("▁") == spaces
    assert pieces.decode(ids) == "sort<x>sort"
    assert pieces.decode([599, 601, 10**6]) == ""


def test_white_space_beside_a_token_goes_where_the_token_says() -> None:
    eats = AddedToken("<x>", lstrip=True, rstrip=True)
    pieces = SentencePieces(train(LINES, 520, LLAMA), {600: eats}, {}, "none")
    assert pieces.encode("a \n <x> \t b") == [*pieces.encode("a"), 600, *pieces.encode("b")]
