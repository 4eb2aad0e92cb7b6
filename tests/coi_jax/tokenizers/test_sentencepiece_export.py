from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from coi_jax.tokenizers.sentencepiece_export import tokenizer_files
from coi_jax.tokenizers.vocabulary import SentencePieceVocabulary
from data_pipeline.tasks.sentencepiece_training import OPTIONS, train
from tests.helpers.tokenizer_folders import LINES, LLAMA, TORTURE

TEXTS = [text for text in TORTURE if "▁" not in text]  # which transformers reads as a space


@pytest.mark.parametrize("options", [OPTIONS, LLAMA], ids=["as it is trained here", "as Llama's"])
def test_transformers_gives_the_same_ids_and_text(tmp_path: Path, options: dict[str, Any]) -> None:
    model = train(filter(None, (line for text in LINES for line in text.split("\n"))), 600, options)
    ours = SentencePieceVocabulary(model, "trained")
    for name, data in tokenizer_files(model).items():
        (tmp_path / name).write_bytes(data)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert {*theirs("a b")} == {"input_ids", "attention_mask"}, "which is what a decoder's generate takes"
    assert {text: theirs(text).input_ids for text in TEXTS} == {text: ours.encode(text) for text in TEXTS}
    assert [theirs.decode(ours.encode(text)) for text in TEXTS] == [ours.decode(ours.encode(text)) for text in TEXTS]
    assert (theirs.eos_token_id, theirs.bos_token_id, len(theirs)) == (ours.eos_id, ours.bos_id, ours.size)
