"""The interface of every vocabulary: text to ids and back.

`size` is the real number of ids; a model may pad its embedding to a multiple that its mesh divides, and must then
never be asked for an id of the padding.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Vocabulary(Protocol):
    """Text to ids and back; ids are below `size`."""

    name: str
    size: int
    pad_id: int
    eos_id: int
    stop_ids: tuple[int, ...]  # what ends an answer: `eos_id` first, then what a published model may end with besides
    bos_id: int | None  # None where examples do not begin with one
    add_eos_to_inputs: bool  # whether a prompt ends with `eos_id`, as published T5s' do
    fingerprint: str  # SHA-256 of all that defines it, the version of the tokenizer library included

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special ids."""

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """Return the text of ids up to the first of `stop_ids`, without pad and begin-of-sequence ids."""


def strip_special_ids(ids: Iterable[int | np.integer], vocabulary: Vocabulary) -> list[int]:
    """Return the ids of text: those before the first stop id, without pad and begin-of-sequence ids."""
    kept = []
    for token in map(int, ids):
        if token in vocabulary.stop_ids:
            break
        if token not in (vocabulary.pad_id, vocabulary.bos_id):
            kept.append(token)
    return kept


@runtime_checkable
class SupportsChat(Protocol):
    """A vocabulary whose tokenizer formats conversations by rules of its own."""

    def encode_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the ids of a conversation up to where the model's answer begins, without the begin-of-sequence id.

        Args:
          messages: each with a "role" ("system", "user" or "assistant") and a "content"; the last is the user's.
        """
