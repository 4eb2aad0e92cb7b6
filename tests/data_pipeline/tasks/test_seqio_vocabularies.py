from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqio
import tensorflow as tf

from coi_jax.data import prompts
from coi_jax.tokenizers.mistral import MistralVocabulary
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.published import open_tokenizer
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from data_pipeline.tasks.seqio_vocabularies import PromptVocabulary, SeqioVocabulary
from tests.helpers.tokenizer_folders import FAMILIES, LOOKALIKES, TORTURE

TEXTS = ["", "sort é\n", "  two  spaces "]


@pytest.mark.parametrize("vocabulary", [ByteVocabulary(), MistralVocabulary("v1")], ids=lambda v: v.name)
def test_tensorflow_and_python_agree(vocabulary: Vocabulary) -> None:
    adapter = SeqioVocabulary(vocabulary)
    for text in TEXTS:
        ids = vocabulary.encode(text)
        assert adapter.encode(text) == ids
        assert adapter.encode_tf(tf.constant(text)).numpy().tolist() == ids
        assert adapter.decode([*ids, adapter.eos_id, 5]) == text
        assert adapter.decode_tf(tf.constant([*ids, adapter.eos_id, 5])).numpy().decode() == text
    encoded = [vocabulary.encode(text) for text in TEXTS]
    padded = np.array([[*ids, *[vocabulary.eos_id] * (30 - len(ids))] for ids in encoded], np.int32)
    assert [text.decode() for text in adapter.decode_tf(tf.constant(padded)).numpy()] == TEXTS


def test_what_seqio_asks_of_a_vocabulary() -> None:
    adapter = SeqioVocabulary(MistralVocabulary("v1"))
    assert (adapter.vocab_size, adapter.pad_id, adapter.bos_id, adapter.eos_id) == (32_000, 0, 1, 2)
    assert adapter == SeqioVocabulary(MistralVocabulary("v1"))
    assert adapter != SeqioVocabulary(ByteVocabulary())
    assert len({adapter, SeqioVocabulary(MistralVocabulary("v1"))}) == 1


def test_in_a_dataset_as_seqio_tokenizes() -> None:
    feature = seqio.Feature(SeqioVocabulary(ByteVocabulary()))
    dataset = tf.data.Dataset.from_tensor_slices({"inputs": TEXTS})
    ids = seqio.preprocessors.tokenize(dataset, {"inputs": feature}).as_numpy_iterator()
    assert [example["inputs"].tolist() for example in ids] == [ByteVocabulary().encode(text) for text in TEXTS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    for family in ("llama3", "llama_model", "t5"):
        FAMILIES[family](folder / family)
    return folder


@pytest.mark.parametrize("family", ["llama3", "llama_model", "t5"])
def test_published_tokenizers_are_vocabularies_of_seqio(folders: Path, family: str) -> None:
    """What `seqio/vocabularies_test.py` asks of SentencePiece's: every rank, ragged rows, empty ones, odd ids."""
    vocabulary = open_tokenizer(str(folders / family), "plain")
    adapter = SeqioVocabulary(vocabulary)
    for text in (*TORTURE, *LOOKALIKES):
        ids = vocabulary.encode(text)
        assert adapter.encode(text) == adapter.encode_tf(tf.constant(text.encode())).numpy().tolist() == ids
        assert adapter.decode(ids) == adapter.decode_tf(tf.constant(ids, tf.int32)).numpy().decode()
    nested_ids: list[Any] = vocabulary.encode("sort")
    nested_text: Any = "sort"
    for _ in range(3):
        nested_ids, nested_text = [nested_ids, nested_ids], [nested_text, nested_text]
        decoded = adapter.decode_tf(tf.constant(nested_ids)).numpy()
        assert np.vectorize(bytes.decode)(decoded).tolist() == nested_text
    ragged = adapter.decode_tf(
        tf.ragged.constant([[], vocabulary.encode("a"), vocabulary.encode("b a")], dtype=tf.int32)
    )
    assert ragged.numpy().tolist() == [b"", b"a", b"b a"]
    odd = [vocabulary.size + 9, *vocabulary.encode("b"), vocabulary.eos_id, 7]
    assert adapter.decode(odd) == adapter.decode_tf(tf.constant(odd)).numpy().decode() == "b"
    assert (
        adapter == SeqioVocabulary(open_tokenizer(str(folders / family), "plain")) != SeqioVocabulary(ByteVocabulary())
    )


def test_prompts_are_encoded_by_their_template(folders: Path) -> None:
    chat = open_tokenizer(str(folders / "llama3"), "chat")
    text = prompts.prompt("Sort <|eot_id|>.", "b a", "chat")
    adapter = PromptVocabulary(chat, "chat")
    ids = prompts.encode_prompt(text, "chat", chat)
    assert adapter.encode(text) == adapter.encode_tf(tf.constant(text)).numpy().tolist() == ids
    assert adapter == PromptVocabulary(chat, "chat")
    assert adapter != PromptVocabulary(chat, "plain")
    assert adapter != SeqioVocabulary(chat)
    t5 = open_tokenizer(str(folders / "t5"), "plain", for_t5=True)
    assert PromptVocabulary(t5, "plain").encode("sort") == [*t5.encode("sort"), t5.eos_id]
    assert SeqioVocabulary(t5).encode("sort") == t5.encode("sort")
