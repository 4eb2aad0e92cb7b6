"""What every vocabulary offers: text to ids and back.

`size` is the real number of ids; a model may pad its embedding to a multiple that its mesh divides, and must then never
be asked for an id of the padding.
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
    ends_inputs: bool  # whether a prompt ends with `eos_id`, as published T5s' do
    fingerprint: str  # SHA-256 of all that defines it, the version of the tokenizer library included

    def encode(self, text: str) -> list[int]:
        """The ids of a text; no special ids are added."""

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """The text of ids up to the first of `stop_ids`; pads and begins are left out."""


def content(ids: Iterable[int | np.integer], vocabulary: Vocabulary) -> list[int]:
    """The ids that carry text: up to the first end, without pads and begins."""
    kept = []
    for token in map(int, ids):
        if token in vocabulary.stop_ids:
            break
        if token not in (vocabulary.pad_id, vocabulary.bos_id):
            kept.append(token)
    return kept


@runtime_checkable
class Converses(Protocol):
    """A vocabulary whose tokenizer lays out conversations by rules of its own."""

    def encode_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The ids of a conversation, from after the begin id to where the model's answer begins.

        Args:
          messages: each with a "role" ("user" or "assistant") and a "content"; the last is the user's.
        """
