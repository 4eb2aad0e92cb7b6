"""Vocabularies: text to ids and back, by name.

`size` is the real number of ids; a model may pad its embedding to a multiple that its mesh divides, and must then never
be asked for an id of the padding.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import sentencepiece
from etils import epath

from coi_jax.chains import dataset
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path
from coi_jax.config.run import (
    BytesVocabularyConfig,
    MistralVocabularyConfig,
    RunConfig,
    SentencePieceVocabularyConfig,
    TokenizerVocabularyConfig,
    TrainedVocabularyConfig,
)
from coi_jax.tokenizers.protocol import Vocabulary, strip_special_ids

# Raise it with every change that trains another vocabulary on the same rows; tests/goldens/ids.json notices them.
TRAINER_VERSION = 1
NO_MODEL = "not a SentencePiece model; restore it, or name a .model file"
SPACE_SYMBOL = "▁"  # SentencePiece's own sign for a space (U+2581)


class ByteVocabulary:
    """UTF-8 bytes, in the numbering of ByT5 (Xue et al. 2022): pad 0, end 1, unknown 2, byte b is b + 3."""

    name = "bytes"
    size = 259
    pad_id, eos_id = 0, 1
    stop_ids: tuple[int, ...] = (1,)
    bos_id: int | None = None
    add_eos_to_inputs = False
    fingerprint = hashlib.sha256(b"bytes+3").hexdigest()

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return [byte + 3 for byte in text.encode("utf-8")]

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """See `Vocabulary.decode`; bytes that are not UTF-8 become U+FFFD."""
        return bytes(token - 3 for token in strip_special_ids(ids, self) if token >= 3).decode("utf-8", "replace")


class SentencePieceVocabulary:
    """A SentencePiece model.

    A model without a pad piece (Llama's) pads with its unknown piece: padding is marked by segment 0, never by its id.
    """

    add_eos_to_inputs = False

    def __init__(self, model: bytes, name: str) -> None:
        self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.name = name
        self.size = self._model.vocab_size()
        self.eos_id = self._model.eos_id()
        self.stop_ids: tuple[int, ...] = (self.eos_id,)
        self.pad_id = self._model.pad_id() if self._model.pad_id() >= 0 else self._model.unk_id()
        self.bos_id = self._model.bos_id() if self._model.bos_id() >= 0 else None
        self.fingerprint = files.digest([sentencepiece.__version__, hashlib.sha256(model).hexdigest()])
        self._space_symbol = self._bytes_of_space_symbol()

    def _bytes_of_space_symbol(self) -> list[int]:
        ids = [self._model.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_SYMBOL.encode("utf-8")]
        return ids if all(self._model.is_byte(token) for token in ids) else []

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`.

        A "▁" of the text itself, which SentencePiece would take for a space, is written as its bytes where the model
        has bytes.
        """
        if not self._space_symbol or SPACE_SYMBOL not in text:
            ids: list[int] = self._model.encode(text)
        else:
            first, *rest = (self._model.encode(part) for part in text.split(SPACE_SYMBOL))
            ids = first + [token for part in rest for token in [*self._space_symbol, *part]]
        return ids

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """See `Vocabulary.decode`."""
        text: str = self._model.decode([token for token in strip_special_ids(ids, self) if token < self.size])
        return text


def trained_size(config: RunConfig) -> int:
    """Return the number of pieces of a vocabulary that is trained on the config's dataset."""
    assert isinstance(config.vocabulary, TrainedVocabularyConfig)
    return config.vocabulary.size


def trained_path(config: RunConfig) -> epath.Path:
    """Return the path of the vocabulary trained on a config's dataset, a name made of everything that determines it.

    Raises:
      UserError: the dataset folder or its training split is missing.
    """
    data = dataset.split_path(config.data.folder, config.data.split, "config.data.folder")
    trainer = [TRAINER_VERSION, sentencepiece.__version__]
    key = files.digest([files.cached_sha256(data), config.data.template, trained_size(config), *trainer])
    return as_path(config.data.cache_folder, "config.data.cache_folder") / f"vocabulary-{key[:16]}.model"


def load_vocabulary(config: RunConfig, kept: PathLike | None = None) -> Vocabulary:
    """Load the vocabulary that a config names.

    Args:
      config: its `vocabulary` names it; its template and model configure a published tokenizer.
      kept: a run's own copy of the file or folder, which is read instead.

    Raises:
      UserError: the file is missing or invalid, or Mistral has no such version.
    """
    match config.vocabulary:
        case BytesVocabularyConfig():
            return ByteVocabulary()
        case MistralVocabularyConfig(version=version):
            from coi_jax.tokenizers.mistral import MistralVocabulary  # a second to import, and rarely needed

            return MistralVocabulary(version)
        case SentencePieceVocabularyConfig(file=file):
            return read_sentencepiece(kept or file)
        case TrainedVocabularyConfig():
            return read_sentencepiece(kept or trained_path(config))
        case TokenizerVocabularyConfig(folder=folder):
            from coi_jax.tokenizers.published import open_tokenizer  # half a second to import

            path, model = str(kept or folder), config.model
            return open_tokenizer(
                path,
                config.data.template,
                for_t5=model.kind == "t5",
                embedding_rows=model.vocabulary_size or 0,
                variables=config.data.chat.variables,
            )


def read_sentencepiece(path: PathLike) -> SentencePieceVocabulary:
    """Load the vocabulary of a SentencePiece model file.

    Raises:
      UserError: there is no such file, it is not a SentencePiece model, or it has no end-of-sequence piece.
    """
    place = as_path(path, "vocabulary file")
    if not place.exists() or place.is_dir():
        raise UserError("vocabulary file", path, "no such file; name a SentencePiece .model file")
    model = files.read_bytes(place, "vocabulary file")
    if not model:  # SentencePiece would take it for "no model" and crash later
        raise UserError("vocabulary file", path, f"is empty, {NO_MODEL}")
    try:
        vocabulary = SentencePieceVocabulary(model, place.stem)
    except (RuntimeError, UnicodeDecodeError):  # the library quotes bytes of the file in its errors
        raise UserError("vocabulary file", path, NO_MODEL) from None
    if vocabulary.eos_id < 0:
        raise UserError("vocabulary file", path, "has no end-of-sequence piece; train it with eos_id")
    return vocabulary
