from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coi_jax.chains.chain import Chain, Step, join, label
from coi_jax.common.errors import UserError
from coi_jax.config.run import AllStepsConfig, LastStepConfig, LossOnConfig, WeightedStepsConfig
from coi_jax.data.step_weights import TargetWeights, step_starts, step_weights
from coi_jax.tokenizers.mistral import MistralVocabulary
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.published import open_tokenizer
from coi_jax.tokenizers.vocabulary import ByteVocabulary, SentencePieceVocabulary
from data_pipeline.tasks.sentencepiece_training import train
from tests.helpers import tokenizer_folders

OUTPUTS = (
    ("b a", "a b"),
    ("été 日本", "", "👍🏽 last"),
    ("two\nlines\n", "Task 2 output: not a label", "Task 1 output and task 2 input: neither"),
    ("  spaces  ", "\n", "7"),
    ("one", "two", "three", "four", "five"),
    ("日本語", "日本語"),
)


def make_chain(outputs: tuple[str, ...]) -> Chain:
    steps = tuple(Step(f"Do {number}.", output) for number, output in enumerate(outputs))
    return Chain("id", "test", "x", join([step.instruction for step in steps]), steps)


def encode(chain: Chain, vocabulary: Vocabulary) -> np.ndarray:
    return np.array([*vocabulary.encode(chain.targets), vocabulary.eos_id], np.int32)


def steps_of(chain: Chain, vocabulary: Vocabulary) -> list[str]:
    """The text of the tokens of each step."""
    ids = encode(chain, vocabulary)
    starts = step_starts(ids, chain, vocabulary)
    assert starts[0] == 0
    assert starts == sorted(starts)
    return [vocabulary.decode(ids[a:b]) for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Vocabulary]:
    folder = tmp_path_factory.mktemp("vocabularies")
    lines = filter(None, (line for text in tokenizer_folders.LINES for line in text.split("\n")))
    found: dict[str, Vocabulary] = {
        "bytes": ByteVocabulary(),
        "trained": SentencePieceVocabulary(train(lines, 500), "trained"),
        "mistral v1": MistralVocabulary("v1"),
        "mistral tekken": MistralVocabulary("tekken"),
    }
    return found | dict(published(folder))


def published(folder: Path) -> Iterator[tuple[str, Vocabulary]]:
    for family in ("llama3", "qwen", "llama_model"):
        tokenizer_folders.FAMILIES[family](folder / family)
        yield family, open_tokenizer(f"{folder}/{family}", "plain")


NAMES = ("bytes", "trained", "mistral v1", "mistral tekken", "llama3", "qwen", "llama_model")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("outputs", OUTPUTS, ids=lambda outputs: outputs[0].split("\n")[0])
def test_the_tokens_of_a_step_are_its_label_and_its_output(
    vocabularies: dict[str, Vocabulary], name: str, outputs: tuple[str, ...]
) -> None:
    """Where tokens end with a step, their texts are the parts of the whole answer, each beginning with its label."""
    chain = make_chain(outputs)
    texts = steps_of(chain, vocabularies[name])
    assert len(texts) == chain.length
    for number, text in enumerate(texts, 1):
        assert text.strip().startswith(label(number, chain.length)), texts
        assert text.strip().count(f"Task {number} output") >= 1
    assert " ".join("".join(texts).split()) == " ".join(
        vocabularies[name].decode(encode(chain, vocabularies[name])).split()
    )


def test_a_vocabulary_that_spells_no_newlines_has_the_steps_too(tmp_path: Path) -> None:
    """T5's: white space before a label is part of the label's first token."""
    tokenizer_folders.FAMILIES["t5_model"](tmp_path / "model")
    vocabulary = open_tokenizer(str(tmp_path / "model"), "plain", for_t5=True)
    texts = [text.strip() for text in steps_of(make_chain(("b a", "a b c", "3")), vocabulary)]
    assert texts == [
        "Task 1 output and task 2 input: b a",
        "Task 2 output and task 3 input: a b c",
        "Task 3 output: 3",
    ]


@settings(max_examples=60)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=4).map(tuple))
def test_the_bytes_of_a_step_are_exact(outputs: tuple[str, ...]) -> None:
    chain = make_chain(outputs)
    texts = steps_of(chain, ByteVocabulary())
    assert "".join(texts) == chain.targets
    if chain.length > 1:
        assert [text.startswith(label(number, chain.length)) for number, text in enumerate(texts, 1)] == [True] * len(
            texts
        )


def test_a_vocabulary_without_the_labels_is_said() -> None:
    chain = make_chain(("a", "b"))
    with pytest.raises(
        UserError, match=r"^config\.train\.loss_on: .*vocabulary bytes does not keep the labels of chain id"
    ):
        step_starts(np.array([*ByteVocabulary().encode("a b"), 1], np.int32), chain, ByteVocabulary())


@pytest.mark.parametrize(
    ("loss_on", "length", "expected"),
    [
        (AllStepsConfig(kind="all_steps"), 3, [1, 1, 1]),
        (LastStepConfig(kind="last_step"), 3, [0, 0, 1]),
        (LastStepConfig(kind="last_step"), 1, [1]),
        (WeightedStepsConfig(kind="weighted_steps", weights=(0.5, 2.0)), 4, [0.5, 2, 2, 2]),
        (WeightedStepsConfig(kind="weighted_steps", weights=(0.5, 2.0)), 1, [0.5]),
    ],
)
def test_weights_of_steps(loss_on: LossOnConfig, length: int, expected: list[float]) -> None:
    assert step_weights(loss_on, length) == expected


def test_targets_have_the_weights_of_their_steps_also_where_they_are_cut() -> None:
    loss_on: Any = WeightedStepsConfig(kind="weighted_steps", weights=(0.0, 2.0, 0.0))
    weights = TargetWeights(loss_on, [[0, 2, 5], [0, 2, 5], [0, 2, 5], [0]], np.array([7, 4, 2, 3]))
    assert [weights.of(example).tolist() for example in range(4)] == [
        [0, 0, 2, 2, 2, 0, 0],
        [0, 0, 2, 2],
        [0, 0],
        [0, 0, 0],
    ]
    assert weights.spans().tolist() == [5, 2, 0, 0]
