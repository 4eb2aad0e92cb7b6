from pathlib import Path

import pytest

from coi_jax.chains.chain import label, render
from coi_jax.serving.prompting import kept_steps_ids
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.published import open_tokenizer
from coi_jax.tokenizers.vocabulary import ByteVocabulary, SentencePieceVocabulary
from data_pipeline.tasks.sentencepiece_training import train
from tests.helpers.tokenizer_folders import FAMILIES, LINES

ANSWERS = ("tower, kiwi", "3", "No", "Étude", '"x"', "[1, 2]", "the")


def check(vocabulary: Vocabulary) -> None:
    """An answer that is written whole begins with the ids of its first steps, however the next one goes on."""
    for outputs, length in ((["pear, fig"], 2), (["a\nb", "Task 1"], 3), (["x"], 4)):
        forced = list(kept_steps_ids(vocabulary, outputs, length))
        for answer in ANSWERS:
            whole = render([*outputs, answer, *["y"] * (length - len(outputs) - 1)])
            assert vocabulary.encode(whole)[: len(forced)] == forced
        written, due = vocabulary.decode(forced), label(len(outputs) + 1, length)
        assert "".join(written.split()).endswith("".join(due.split())), written


def test_bytes() -> None:
    check(ByteVocabulary())


def test_a_trained_vocabulary() -> None:
    """Its pieces end with a space, where those of most begin with one."""
    labels = [
        f"Task {k} output and task {k + 1} input: {word}" for k in range(1, 4) for word in ("pear", "kiwi", "a b")
    ]
    vocabulary = SentencePieceVocabulary(train([*LINES, *labels * 20], 700), "trained")
    assert vocabulary.encode("Task 2 output: a")[-2:] != vocabulary.encode("Task 2 output:")[-1:]
    check(vocabulary)


@pytest.mark.parametrize("family", FAMILIES)
def test_published_tokenizers(tmp_path: Path, family: str) -> None:
    FAMILIES[family](tmp_path)
    check(open_tokenizer(str(tmp_path), "plain"))
