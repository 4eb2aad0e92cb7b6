import numpy as np
import pytest
import seqio
import tensorflow as tf

from coi_jax.mistral_vocabulary import MistralVocabulary
from coi_jax.vocabulary import ByteVocabulary, Vocabulary
from data_pipeline.vocabularies import SeqioVocabulary

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
