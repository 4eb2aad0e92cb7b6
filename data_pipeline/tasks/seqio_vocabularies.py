"""The adapters that let SeqIO use a vocabulary of `coi_jax`."""

from collections.abc import Sequence

import numpy as np
import seqio
import tensorflow as tf
from jaxtyping import Int32

from coi_jax.data import prompts
from coi_jax.tokenizers.protocol import Vocabulary


class SeqioVocabulary(seqio.Vocabulary):
    """A `coi_jax` vocabulary as SeqIO knows vocabularies: the ids are the same in Python and in TensorFlow."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    @property
    def bos_id(self) -> int | None:
        """The id that begins an example, if any."""
        return self.vocabulary.bos_id

    @property
    def eos_id(self) -> int:
        """The id that ends an answer."""
        return self.vocabulary.eos_id

    @property
    def pad_id(self) -> int:
        """The id that fills a row."""
        return self.vocabulary.pad_id

    @property
    def unk_id(self) -> None:
        """None: no text is out of vocabulary, and an id past the end is left out of the text."""
        return None

    @property
    def _base_vocab_size(self) -> int:
        return self.vocabulary.size

    def _encode(self, s: str) -> Sequence[int]:
        return self.vocabulary.encode(s)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.vocabulary.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        ids = tf.numpy_function(self._encode_bytes, [s], tf.int32)
        return tf.ensure_shape(ids, [None])

    def _encode_bytes(self, text: bytes | np.ndarray) -> Int32[np.ndarray, " ids"]:
        # TensorFlow hands over bytes inside a dataset, and an array of them outside.
        raw: bytes = text.item() if isinstance(text, np.ndarray) else text
        return np.array(self._encode(raw.decode("utf-8")), np.int32)

    def decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        """Return the texts of ids of any rank, each up to its end."""
        return self._decode_tf(ids)

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        if ids.shape.rank > 1:
            return tf.map_fn(self._decode_tf, ids, fn_output_signature=tf.string)
        return tf.ensure_shape(tf.numpy_function(self._decode_ids, [ids], tf.string), [])

    def _decode_ids(self, ids: Sequence[int]) -> bytes:
        return self.vocabulary.decode(ids).encode("utf-8")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqioVocabulary) and other.vocabulary.fingerprint == self.vocabulary.fingerprint

    def __hash__(self) -> int:
        return hash(self.vocabulary.fingerprint)


class PromptVocabulary(SeqioVocabulary):
    """A vocabulary as it encodes prompts: those of a template that is a conversation are its JSON."""

    def __init__(self, vocabulary: Vocabulary, template: str) -> None:
        super().__init__(vocabulary)
        self.template = template

    def _encode(self, s: str) -> Sequence[int]:
        return prompts.encode_prompt(s, self.template, self.vocabulary)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PromptVocabulary) and other.template == self.template and super().__eq__(other)

    def __hash__(self) -> int:
        return hash((self.vocabulary.fingerprint, self.template))
