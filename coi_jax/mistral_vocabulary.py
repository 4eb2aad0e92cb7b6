"""The tokenizers of Mistral's models, from the files that mistral-common ships."""

from collections.abc import Callable, Iterable

import numpy as np
from mistral_common.tokens.tokenizers.base import Tokenizer
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import is_tekkenizer

from coi_jax import files
from coi_jax.errors import UserError, nearest
from coi_jax.vocabulary import content

MISTRAL: dict[str, Callable[[], MistralTokenizer]] = {
    "v1": MistralTokenizer.v1,
    "v2": MistralTokenizer.v2,
    "v3": MistralTokenizer.v3,
    "v7": MistralTokenizer.v7,
    "tekken": lambda: MistralTokenizer.v3(is_tekken=True),
}


class MistralVocabulary:
    """A tokenizer of Mistral's models.

    The SentencePiece ones ("v1" to "v7") have no pad id: they pad with their unknown id, 0, which no text has because
    every byte has an id. "tekken" pads with its own.
    """

    def __init__(self, version: str) -> None:
        if version not in MISTRAL:
            raise UserError("config.vocabulary.file", version, nearest(version, list(MISTRAL)))
        self._tokenizer: Tokenizer = MISTRAL[version]().instruct_tokenizer.tokenizer
        self.name = f"mistral-{version}"
        self.size = self._tokenizer.n_words
        self.bos_id: int | None = self._tokenizer.bos_id
        self.eos_id = self._tokenizer.eos_id
        self.pad_id = self._tokenizer.pad_id if is_tekkenizer(self._tokenizer) else self._tokenizer.unk_id
        self.fingerprint = files.digest([version, files.sha256(self._tokenizer.file_path)])

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return self._tokenizer.encode(text, bos=False, eos=False)

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """See `Vocabulary.decode`."""
        return self._tokenizer.decode([token for token in content(ids, self) if token < self.size])
