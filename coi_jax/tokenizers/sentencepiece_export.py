"""Writes a SentencePiece vocabulary as the files that `transformers` loads."""

import json
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from coi_jax.tokenizers.pieces import SPACE_SYMBOL


def tokenizer_files(model: bytes) -> dict[str, bytes]:
    """Return the files of a tokenizer that gives the ids of a SentencePiece model.

    A BPE model that changes no character becomes a `tokenizer.json`, as exact as the model itself but for control
    tokens, which `transformers` reads in a text. Any other model is written as it is, with the class of Llama's, which
    `transformers` converts.

    Args:
      model: the bytes of the SentencePiece model.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    normalizer = proto.normalizer_spec
    is_exact = proto.trainer_spec.model_type == proto.trainer_spec.BPE and not normalizer.precompiled_charsmap
    if not is_exact or normalizer.remove_extra_whitespaces or normalizer.add_dummy_prefix:
        config = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": False, "add_eos_token": False}
        return {"tokenizer.model": model, "tokenizer_config.json": _json(config | _special_tokens(proto))}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],  # or it returns token types, which models refuse
        "clean_up_tokenization_spaces": False,
    }
    return {
        "tokenizer.json": _bpe_tokenizer(proto).to_str(pretty=True).encode("utf-8"),
        "tokenizer_config.json": _json(config | _special_tokens(proto)),
    }


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


def _special_tokens(proto: Any) -> dict[str, str | None]:
    """Return the special tokens of a model by their names in `transformers`; None for one that it lacks."""
    ids = {name: getattr(proto.trainer_spec, f"{name}_id") for name in ("bos", "eos", "pad", "unk")}
    return {f"{name}_token": proto.pieces[id].piece if id >= 0 else None for name, id in ids.items()}


def _bpe_tokenizer(proto: Any) -> Tokenizer:
    """Return the tokenizer of a BPE model without normalization."""
    kinds = proto.SentencePiece
    scores = {piece.piece: piece.score for piece in proto.pieces}
    vocabulary = {piece.piece: id for id, piece in enumerate(proto.pieces)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges({piece.piece for piece in proto.pieces if piece.type == kinds.NORMAL}, scores, vocabulary),
            unk_token=proto.pieces[proto.trainer_spec.unk_id].piece,
            fuse_unk=True,
            byte_fallback=proto.trainer_spec.byte_fallback,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE_SYMBOL)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_SYMBOL, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    for piece in proto.pieces:
        if piece.type in (kinds.CONTROL, kinds.UNKNOWN):
            tokenizer.add_special_tokens([AddedToken(piece.piece, special=True, normalized=False)])
        elif piece.type == kinds.USER_DEFINED:
            tokenizer.add_tokens([AddedToken(piece.piece, special=False, normalized=False)])
    return tokenizer


def _merges(pieces: set[str], scores: dict[str, float], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return the pairs of pieces that make a piece, in the order in which SentencePiece prefers them."""
    made: list[tuple[str, str]] = []
    for piece in sorted(pieces, key=lambda piece: (-scores[piece], vocabulary[piece])):
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        made += [pair for pair in pairs if pair[0] in pieces and pair[1] in pieces]
    return made
