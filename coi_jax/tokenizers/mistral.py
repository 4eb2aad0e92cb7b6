"""The tokenizers of Mistral's models, from the files that mistral-common ships."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mistral_common
import numpy as np
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.base import Tokenizer
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import is_tekkenizer

from coi_jax.common import files
from coi_jax.common.errors import UserError, nearest
from coi_jax.tokenizers.protocol import strip_special_ids

MISTRAL: dict[str, Callable[[], MistralTokenizer[Any, Any, Any, Any, Any]]] = {
    "v1": MistralTokenizer.v1,
    "v2": MistralTokenizer.v2,
    "v3": MistralTokenizer.v3,
    "v7": MistralTokenizer.v7,
    "tekken": lambda: MistralTokenizer.v3(is_tekken=True),
}
MESSAGES: dict[str, type[SystemMessage] | type[UserMessage] | type[AssistantMessage]] = {
    "system": SystemMessage,
    "user": UserMessage,
    "assistant": AssistantMessage,
}


class MistralVocabulary:
    """A tokenizer of Mistral's models.

    The SentencePiece ones ("v1" to "v7") have no pad id: they pad with their unknown id, 0, which no text has because
    every byte has an id. "tekken" pads with its own.
    """

    add_eos_to_inputs = False

    def __init__(self, version: str) -> None:
        if version not in MISTRAL:
            raise UserError("config.vocabulary.version", version, nearest(version, list(MISTRAL)))
        self._instruct = MISTRAL[version]()
        self._tokenizer: Tokenizer = self._instruct.instruct_tokenizer.tokenizer
        self.name = f"mistral-{version}"
        self.size = self._tokenizer.n_words
        self.bos_id: int | None = self._tokenizer.bos_id
        self.eos_id = self._tokenizer.eos_id
        self.stop_ids: tuple[int, ...] = (self.eos_id,)
        self.pad_id = self._tokenizer.pad_id if is_tekkenizer(self._tokenizer) else self._tokenizer.unk_id
        self.fingerprint = files.digest([mistral_common.__version__, version, files.sha256(self._tokenizer.file_path)])

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return self._tokenizer.encode(text, bos=False, eos=False)

    def encode_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """See `SupportsChat.encode_chat`.

        Raises:
          UserError: mistral-common does not take such a conversation.
        """
        made = [MESSAGES[message["role"]](content=message["content"]) for message in messages]
        try:
            tokens: list[int] = self._instruct.encode_chat_completion(ChatCompletionRequest(messages=made)).tokens
        except MistralCommonException as error:
            raise UserError("config.data.template", "mistral", f"mistral-common says: {error}") from None
        assert tokens[0] == self.bos_id
        return tokens[1:]

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """See `Vocabulary.decode`."""
        return self._tokenizer.decode([token for token in strip_special_ids(ids, self) if token < self.size])
