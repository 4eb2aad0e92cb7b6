"""The ids that every vocabulary, template and way of prompting gives, and the pieces of a trained vocabulary.

Token caches and trained vocabularies are addressed by version numbers. Where a change gives other ids than
tests/goldens/ids.json has, and is meant to, raise `PREPROCESSING_VERSION` (or `TRAINER_VERSION`, where a trained
vocabulary differs) and write the file again with `python -m tests.test_golden_ids`.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from coi_jax.chains.chain import Chain, Step
from coi_jax.common import files
from coi_jax.data import prompts, token_cache
from coi_jax.data.prompts import encode_prompt, few_shot
from coi_jax.tokenizers import vocabulary
from coi_jax.tokenizers.mistral import MistralVocabulary
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.published import open_tokenizer
from coi_jax.tokenizers.vocabulary import ByteVocabulary, SentencePieceVocabulary
from data_pipeline.tasks.sentencepiece_training import train
from tests.helpers import tokenizer_folders
from tests.helpers.paths import GOLDENS

pytestmark = pytest.mark.xdist_group("golden ids")  # its fixture takes long: one worker makes it

GOLDEN = GOLDENS / "ids.json"
CHAINS = (
    Chain("a", "test", "b a", "Sort the words. and then Count them.", (Step("Sort.", "a b"), Step("Count.", "2"))),
    Chain("b", "test", "", "Name a fruit.", (Step("Name a fruit.", "été 日本 \\ Task 2 output: \n x"),)),
    Chain("c", "test", "</s><|im_end|> ▁", "Repeat.", (Step("Repeat.", "</s><|im_end|> ▁"), Step("Stop.", ""))),
)

# Each way of prompting, and each call of those with several, with the outputs of the calls before it.
CALLS = (
    ("direct", "direct", ()),
    ("cot", "cot", ()),
    ("ltm, decompose", "ltm", ()),
    ("ltm, answer", "ltm", ("1. Sort.\n2. Count.",)),
)


def trained() -> bytes:
    """A vocabulary trained as on a dataset."""
    return train(filter(None, (line for text in tokenizer_folders.LINES for line in text.split("\n"))), 500)


def cases() -> Iterator[tuple[str, Vocabulary, str]]:
    """Every vocabulary that needs no download, with the templates that it can lay out."""
    for template in ("plain", "alpaca"):
        yield "bytes", ByteVocabulary(), template
        yield "trained", SentencePieceVocabulary(trained(), "trained"), template
    for version in ("v1", "v3", "tekken"):
        yield f"mistral {version}", MistralVocabulary(version), "plain"
        yield f"mistral {version}", MistralVocabulary(version), "mistral"
    for family in ("llama3", "qwen", "llama_model", "t5_model"):
        with tempfile.TemporaryDirectory() as folder:
            tokenizer_folders.FAMILIES[family](Path(folder) / family)
            yield family, open_tokenizer(f"{folder}/{family}", "plain", for_t5=family == "t5_model"), "plain"
            if family == "qwen":  # Llama 3's template asks for the date
                yield family, open_tokenizer(f"{folder}/{family}", "chat"), "chat"


def golden_ids() -> dict[str, Any]:
    """By case: the ids of prompts and targets."""
    found = {}
    for name, words, template in cases():
        for call, prompting, outputs in CALLS:
            texts = [few_shot(chain, CHAINS[:1], template, prompting, outputs=outputs) for chain in CHAINS]
            ids = [
                [encode_prompt(text, template, words), [*words.encode(chain.targets), words.eos_id]]
                for text, chain in zip(texts, CHAINS, strict=True)
            ]
            found[f"{name}, {template}, {call}"] = {"sha256": files.digest(ids), "first": ids[0][1]}
    return found


def golden() -> dict[str, Any]:
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained())
    return {
        "preprocessing": token_cache.PREPROCESSING_VERSION,
        "ids": golden_ids(),
        "trainer": vocabulary.TRAINER_VERSION,
        "pieces": files.digest([pieces.id_to_piece(number) for number in range(pieces.vocab_size())]),
        "shots": [chain.id for chain in prompts.choose_examples(CHAINS, 2)],
    }


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return golden()


@pytest.mark.parametrize("name", ["preprocessing", "ids", "trainer", "pieces", "shots"])
def test_ids_change_with_their_version_only(found: dict[str, Any], name: str) -> None:
    assert found[name] == json.loads(GOLDEN.read_text(encoding="utf-8"))[name]


if __name__ == "__main__":
    files.write_json(GOLDEN, golden())
