"""Subword encoding with a published model's tokenizer, in which only the caller can write a control token.

Tokenizers match the text of their special tokens everywhere, also in data: "</s>" in an example would end it. Here
every control token has a secret name in place of its own, drawn anew in each process, so that no data can contain
it. A caller that means the token writes the secret name into the text, and the text is still encoded in one pass,
as the tokenizer's rules at boundaries require (a space before the first word alone, and the like).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, models

SPACE_SYMBOL = "▁"  # SentencePiece's own sign for a space (U+2581)

RARE = "\x00Ω日\U0010fffd"  # a text with characters that few models have

# What a BPE model of a `tokenizer.json` has besides its vocabulary and its merges.
BPE_OPTIONS = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)
EMPTY_BPE: dict[str, Any] = {"type": "BPE", "vocab": {}, "merges": []}

Secrets = Mapping[str, str]  # the text of each control token to its secret name


@runtime_checkable
class Pieces(Protocol):
    """Text to ids and back; `ids` maps the text of every token to its id, control tokens by their secret name."""

    ids: Mapping[str, int]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids that are not control tokens; ids without a token have no text."""


def rename_token(token: AddedToken, secrets: Secrets) -> AddedToken:
    """Return the token under its secret name, if it has one."""
    return AddedToken(
        secrets.get(token.content, token.content),
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=token.special,
    )


class JsonPieces:
    """A `tokenizer.json`, through the `tokenizers` library.

    Args:
      values: the content of the file.
      added: tokens besides the model's pieces, in the order of their ids.
      secrets: names of the control tokens.

    Raises:
      ValueError: the library cannot read it.
    """

    def __init__(self, values: Mapping[str, Any], added: Sequence[AddedToken], secrets: Secrets) -> None:
        model = rename_pieces(values["model"], secrets)
        plain: dict[str, Any] = {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        if model.get("type") == "BPE":
            self._tokenizer = load_tokenizer({**values, **plain, "model": EMPTY_BPE})
            self._tokenizer.model = _make_bpe(model)
        else:
            self._tokenizer = load_tokenizer({**values, **plain, "model": model})
        self._tokenizer.add_tokens([rename_token(token, secrets) for token in added])
        self.ids: Mapping[str, int] = self._tokenizer.get_vocab()
        self._check_unknown()

    def _check_unknown(self) -> None:
        """Raise ValueError where the library fails at a text with characters that the model has no piece for."""
        try:
            self._tokenizer.encode(RARE, add_special_tokens=False)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(str(error)) from None

    def encode(self, text: str) -> list[int]:
        """See `Pieces.encode`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pieces.decode`."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text


def load_tokenizer(values: Mapping[str, Any]) -> Tokenizer:
    """Load the tokenizer of a `tokenizer.json`'s values; raise ValueError where they are not valid."""
    try:
        return Tokenizer.from_str(json.dumps(values, ensure_ascii=False))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(str(error)) from None


def _make_bpe(model: Mapping[str, Any]) -> models.BPE:
    """Return the model of a `tokenizer.json`; its parts are given as they are, as text they take twice as long.

    Raises:
      ValueError: a merge makes or takes a piece that the vocabulary has not.
    """
    options = {name: model[name] for name in BPE_OPTIONS if model.get(name) is not None}
    try:
        return models.BPE(model["vocab"], [*map(tuple, _pairs(model["merges"]))], **options)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(str(error)) from None


def _pairs(merges: Sequence[str | Sequence[str]]) -> Iterator[Sequence[str]]:
    """Yield the two pieces of each merge, which older files hold as one text."""
    return (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)


def rename_pieces(model: Mapping[str, Any], secrets: Secrets) -> dict[str, Any]:
    """Return a `tokenizer.json`'s model with secret names for its control pieces, which it could match in a text too.

    Merges that make a renamed piece, or continue from one, are left out.
    """
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces with their scores
        return {**model, "vocab": [[secrets.get(piece, piece), score] for piece, score in vocabulary]}
    values = {**model, "vocab": {secrets.get(piece, piece): id for piece, id in vocabulary.items()}}
    if values.get("unk_token") in secrets:
        values["unk_token"] = secrets[values["unk_token"]]
    if "merges" in model and not secrets.keys().isdisjoint(vocabulary):
        values["merges"] = [
            [left, right]
            for left, right in _pairs(model["merges"])
            if left not in secrets and right not in secrets and left + right not in secrets
        ]
    return values


class SentencePieces:
    """A SentencePiece model, with tokens besides its pieces as `transformers` adds them (`tokenization_llama.py`).

    Args:
      model: the bytes of the file.
      added: those tokens, by id.
      secrets: names of the control tokens.
      prefix: "each" puts the model's leading space before each part of a text between such tokens (what
        `transformers` calls legacy), "first" before the first part alone, "none" before none.

    Raises:
      ValueError: these are not the bytes of a model.
    """

    def __init__(self, model: bytes, added: Mapping[int, AddedToken], secrets: Secrets, prefix: str) -> None:
        self._prefix = prefix
        self._model = sentencepiece.SentencePieceProcessor(model_proto=_edited(model, secrets, prefix))
        pieces = {self._model.id_to_piece(id): id for id in range(self._model.vocab_size())}
        pieces = {secrets.get(piece, piece): id for piece, id in pieces.items()}
        tokens = {id: rename_token(token, secrets) for id, token in added.items()}
        self._hidden = frozenset(secrets.values())
        self._texts = {id: token.content for id, token in tokens.items()}
        self.ids: Mapping[str, int] = pieces | {text: id for id, text in self._texts.items()}
        self._borders = re.compile("|".join(map(_pattern, sorted(tokens.values(), key=_longest_first))) or "(?!)")
        self._anchor = len(self._model.encode("<unk>"))

    def encode(self, text: str) -> list[int]:
        """See `Pieces.encode`."""
        if self._prefix != "each":
            text = text.replace(SPACE_SYMBOL, " ")
        if self._prefix == "first" and text:
            text = SPACE_SYMBOL + text
        ids, start = [], 0
        for border in self._borders.finditer(text):
            token, part = border[border.lastindex or 0], text[start : border.start()]
            if (start, part) != (0, SPACE_SYMBOL) or token not in self._hidden:
                ids += self._encode_part(part)
            ids.append(self.ids[token])
            start = border.end()
        return ids + self._encode_part(text[start:])

    def _encode_part(self, text: str) -> list[int]:
        """Return the ids of a part; without a prefix, leading spaces are kept only behind an anchor token."""
        if self._prefix == "each" or not text.startswith((SPACE_SYMBOL, " ")):
            ids: list[int] = self._model.encode(text)
        else:
            ids = self._model.encode("<unk>" + text)[self._anchor :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pieces.decode`."""
        size = self._model.vocab_size()
        known = [id for id in ids if id in self._texts or id < size]
        text = ""
        for is_added, group in groupby(known, self._texts.__contains__):
            run = list(group)
            text += "".join(self._texts[id] for id in run) if is_added else self._model.decode(run)
        return text.removeprefix(" ") if self._prefix == "first" else text


def _edited(model: bytes, secrets: Secrets, prefix: str) -> bytes:
    """Return the model with secret names for control tokens that it would match in a text, and its leading space."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for piece in proto.pieces:
        if piece.type == proto.SentencePiece.USER_DEFINED:
            piece.piece = secrets.get(piece.piece, piece.piece)
    if prefix != "each":
        proto.normalizer_spec.add_dummy_prefix = False
    data: bytes = proto.SerializeToString()
    return data


def _pattern(token: AddedToken) -> str:
    pattern: str = r"\s*" * token.lstrip + f"({re.escape(token.content)})" + r"\s*" * token.rstrip
    return pattern


def _longest_first(token: AddedToken) -> int:
    return -len(token.content)
