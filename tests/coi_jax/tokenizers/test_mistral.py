import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.protocol.instruct.messages import AssistantMessage, ChatMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from coi_jax.common.errors import UserError
from coi_jax.tokenizers.mistral import MISTRAL, MistralVocabulary
from coi_jax.tokenizers.protocol import SupportsChat
from tests.helpers.tokenizer_folders import LOOKALIKES, TORTURE

VOCABULARIES = {version: MistralVocabulary(version) for version in ("v1", "v3")}
# The SentencePiece ones read "▁" (U+2581) as a space, as Mistral's own models do.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=60)


@pytest.mark.parametrize("version", list(VOCABULARIES))
@settings(max_examples=100)
@given(text=TEXTS | st.text(" \n\ta1", max_size=20))
def test_any_text_comes_back_exactly_without_special_ids(version: str, text: str) -> None:
    vocabulary = VOCABULARIES[version]
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert all(token < vocabulary.size for token in ids)
    assert not {vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id} & set(ids)


def test_ids_are_mistral_commons() -> None:
    vocabulary, reference = VOCABULARIES["v1"], MistralTokenizer.v1().instruct_tokenizer.tokenizer
    text = "Sort the words.\npear  apple 12"
    assert vocabulary.encode(text) == reference.encode(text, bos=False, eos=False)
    assert [vocabulary.bos_id, *vocabulary.encode(text), vocabulary.eos_id] == reference.encode(
        text, bos=True, eos=True
    )
    assert vocabulary.decode([1, *vocabulary.encode(text), 2, *vocabulary.encode("more")]) == text


@pytest.mark.parametrize(("version", "size", "pad"), [("v1", 32_000, 0), ("v3", 32_768, 0), ("tekken", 131_072, 11)])
def test_sizes_and_pads(version: str, size: int, pad: int) -> None:
    vocabulary = MistralVocabulary(version)
    assert (vocabulary.size, vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id) == (size, pad, 1, 2)
    assert vocabulary.decode(vocabulary.encode("a ▁\n")) == ("a ▁\n" if version == "tekken" else "a  \n")


def test_an_unknown_version_lists_the_known() -> None:
    with pytest.raises(UserError, match=", ".join(MISTRAL)):
        MistralVocabulary("7B-Instruct")


def test_fingerprints_differ() -> None:
    assert VOCABULARIES["v1"].fingerprint != VOCABULARIES["v3"].fingerprint


@pytest.mark.parametrize("version", list(MISTRAL))
def test_conversations_are_mistral_commons(version: str) -> None:
    vocabulary, reference = MistralVocabulary(version), MISTRAL[version]()
    assert isinstance(vocabulary, SupportsChat)
    for text in (*TORTURE, *LOOKALIKES):
        made: list[ChatMessage] = [
            UserMessage(content=text),
            AssistantMessage(content=f"yes {text}"),
            UserMessage(content="more"),
        ]
        for turns in (1, 3):
            expected = reference.encode_chat_completion(ChatCompletionRequest(messages=made[:turns])).tokens
            messages = [{"role": one.role, "content": str(one.content)} for one in made[:turns]]
            assert [vocabulary.bos_id, *vocabulary.encode_chat(messages)] == expected
            assert (vocabulary.eos_id in expected) == (turns > 1)


def test_a_conversation_as_the_first_models_read_it() -> None:
    """`[INST] hi [/INST]`, whose ids Mistral-7B-Instruct's page shows."""
    ids = VOCABULARIES["v1"].encode_chat([{"role": "user", "content": "hi"}])
    assert ids == [733, 16289, 28793, 12014, 733, 28748, 16289, 28793]


def test_a_conversation_that_mistral_does_not_take() -> None:
    answer = {"role": "assistant", "content": "hi"}
    with pytest.raises(UserError, match="mistral-common says: "):
        VOCABULARIES["v3"].encode_chat([answer])
