import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from coi_jax.common.errors import UserError
from coi_jax.tokenizers.mistral import MISTRAL, MistralVocabulary
from coi_jax.tokenizers.protocol import SupportsChat, Vocabulary
from coi_jax.tokenizers.published import ChatVocabulary, TokenizerVocabulary, open_tokenizer
from tests.helpers.tokenizer_folders import CHATS, FAMILIES, LOOKALIKES, TORTURE, write_json

ROOT = Path(tempfile.mkdtemp())
# Those that promise to give a text back; SentencePiece reads "▁" as a space, Qwen composes characters.
LOSSLESS = (
    "llama3",
    "llama",
    "llama_legacy",
    "llama_model",
    "llama_legacy_model",
    "alpaca_model",
    "gemma",
    "gemma_model",
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=40)


@pytest.fixture(scope="module", autouse=True)
def _clean_up() -> Iterator[None]:
    yield
    shutil.rmtree(ROOT)


@functools.cache
def folder(family: str) -> Path:
    path = ROOT / family
    FAMILIES[family](path)
    return path


@functools.cache
def ours(family: str) -> TokenizerVocabulary:
    return open_tokenizer(str(folder(family)), "plain", for_t5="t5" in family)


@functools.cache
def chat(family: str) -> ChatVocabulary:
    found = open_tokenizer(str(folder(family)), "chat")
    assert isinstance(found, ChatVocabulary)
    return found


@functools.cache
def theirs(family: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder(family), use_fast=not family.endswith("_model"))


def framed(vocabulary: TokenizerVocabulary, text: str) -> list[int]:
    begin = [] if vocabulary.bos_id is None else [vocabulary.bos_id]
    return begin + vocabulary.encode(text) + [vocabulary.eos_id] * vocabulary.add_eos_to_inputs


def copy_of(family: str, path: Path) -> Path:
    return Path(shutil.copytree(folder(family), path))


def change(path: Path, **fields: Any) -> None:
    write_json(path, json.loads(path.read_text()) | fields)


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_transformers(family: str) -> None:
    vocabulary = ours(family)
    assert isinstance(vocabulary, Vocabulary)
    for text in (*TORTURE, "\n".join(TORTURE[:-3])):
        assert framed(vocabulary, text) == theirs(family)(text, truncation=False).input_ids, text


def test_a_real_vocabulary_of_32000_pieces(tmp_path: Path) -> None:
    """Mistral's, as mistral-common ships it and reads it: no text becomes a control token there either."""
    reference = MistralVocabulary("v1")
    shutil.copy(MISTRAL["v1"]().instruct_tokenizer.tokenizer.file_path, tmp_path / "tokenizer.model")
    vocabulary = open_tokenizer(str(tmp_path / "tokenizer.model"), "plain", embedding_rows=32_000)
    assert (vocabulary.size, vocabulary.bos_id, vocabulary.stop_ids, vocabulary.pad_id) == (32_000, 1, (2,), 0)
    for text in (*TORTURE, *LOOKALIKES):
        assert vocabulary.encode(text) == reference.encode(text)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_becomes_a_control_token(family: str) -> None:
    vocabulary, reference = ours(family), theirs(family)
    control = set(reference.all_special_ids) - {reference.unk_token_id}
    for special in (*LOOKALIKES, *reference.all_special_tokens):
        ids = vocabulary.encode(f"a {special}{special} b")
        assert not control & set(ids), special
        if family in LOSSLESS:
            assert vocabulary.decode(ids) == f"a {special}{special} b"


@pytest.mark.parametrize("family", LOSSLESS)
def test_texts_come_back_exactly(family: str) -> None:
    vocabulary = ours(family)

    @settings(max_examples=40)
    @given(text=TEXTS | st.text(" \n\ta<s>/|", max_size=16))
    def comes_back(text: str) -> None:
        assert vocabulary.decode(vocabulary.encode(text)) == text

    comes_back()
    for text in TORTURE:
        assert vocabulary.decode([*vocabulary.encode(text), vocabulary.eos_id, 7]) == text.replace(
            "▁", " " if family != "llama3" else "▁"
        )


@pytest.mark.parametrize("family", ["qwen", "t5", "t5_model"])
def test_texts_decode_as_in_transformers_where_characters_are_normalised(family: str) -> None:
    for text in TORTURE:
        ids = ours(family).encode(text)
        expected = theirs(family).decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert ours(family).decode(ids) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_without_a_token_decode_to_nothing(family: str) -> None:
    vocabulary = ours(family)
    ids = vocabulary.encode("sort words")
    expected = vocabulary.decode(ids)
    for odd in (vocabulary.size, vocabulary.size + 127, 10**6, -1):
        assert vocabulary.decode([odd, *ids, odd]) == expected


# begin, ends, pad, size beyond the model's pieces, whether inputs end
SPECIAL = {
    "llama3": (400, (404, 401), 404, 405, False),
    "qwen": (None, (402, 400), 400, 404, False),
    "llama": (1, (2,), 0, 520, False),
    "alpaca_model": (1, (2,), 520, 521, False),
    "gemma": (2, (1,), 0, 520, False),
    "t5": (None, (1,), 0, 300, True),
    "t5_model": (None, (1,), 0, 300, True),
    "mt5_model": (None, (1,), 0, 200, True),
}


@pytest.mark.parametrize("family", SPECIAL)
def test_special_ids(family: str) -> None:
    made = ours(family)
    assert (made.bos_id, made.stop_ids, made.pad_id, made.size, made.add_eos_to_inputs) == SPECIAL[family]
    assert made.eos_id == made.stop_ids[0] == theirs(family).eos_token_id
    assert made.size == len(theirs(family))


def test_any_end_ends_an_answer() -> None:
    vocabulary = ours("llama3")
    for end in vocabulary.stop_ids:
        assert vocabulary.decode([*vocabulary.encode("yes"), end, *vocabulary.encode("no")]) == "yes"


@pytest.mark.parametrize(("flag", "begins"), [(True, True), (False, False), (None, False)])
def test_a_flag_says_whether_texts_begin(tmp_path: Path, flag: bool | None, begins: bool) -> None:
    for family in ("llama", "llama_model"):
        path = copy_of(family, tmp_path / family)
        change(path / "tokenizer_config.json", add_bos_token=flag)
        assert (open_tokenizer(str(path), "plain").bos_id is not None) == begins


def test_special_tokens_past_the_embedding_count_only_where_something_writes_them(tmp_path: Path) -> None:
    path = copy_of("gemma", tmp_path / "gemma")
    config = json.loads((path / "tokenizer_config.json").read_text())
    image = {
        "content": "<image>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    change(path / "tokenizer_config.json", added_tokens_decoder=config["added_tokens_decoder"] | {"520": image})
    sizes = [
        open_tokenizer(str(path), template, embedding_rows=rows).size
        for template in ("plain", "chat")
        for rows in (0, 520, 600)
    ]
    assert sizes == [521, 520, 521] * 2
    assert open_tokenizer(str(folder("alpaca_model")), "plain", embedding_rows=520).size == 521


def test_a_vocabulary_is_built_once_until_its_files_change(tmp_path: Path) -> None:
    """A command asks for it several times, and one of Gemma's size takes two seconds."""
    copied = str(shutil.copytree(folder("qwen"), tmp_path / "copy"))
    first = open_tokenizer(copied, "chat", variables={"a": 1})
    assert open_tokenizer(copied, "chat", variables={"a": 1}) is first
    assert open_tokenizer(copied, "plain") is not first
    write_json(tmp_path / "copy" / "generation_config.json", {"eos_token_id": [first.eos_id, 7]})
    again = open_tokenizer(copied, "chat", variables={"a": 1})
    assert again.stop_ids == (first.eos_id, 7)


def test_a_vocabulary_is_known_by_the_bytes_of_its_files(tmp_path: Path) -> None:
    path = copy_of("llama3", tmp_path / "copy")
    first = open_tokenizer(str(path), "plain").fingerprint
    assert first == ours("llama3").fingerprint
    change(path / "generation_config.json", temperature=0.6)
    assert open_tokenizer(str(path), "plain").fingerprint == first
    text = (path / "tokenizer.json").read_text()
    (path / "tokenizer.json").write_text(text.replace("{1,3}", "{1,2}"))
    assert open_tokenizer(str(path), "plain").fingerprint != first
    assert len({ours(family).fingerprint for family in FAMILIES}) == len(FAMILIES)


CONVERSATIONS = (
    ["question"],
    ["  Sort the words.\n\nb a  "],
    ["one", "1", "two", "2", "three"],
    *([text] for text in TORTURE),
)


def messages(contents: list[str]) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents)]


def prompt_ids(vocabulary: ChatVocabulary, contents: list[str]) -> list[int]:
    return [*([] if vocabulary.bos_id is None else [vocabulary.bos_id]), *vocabulary.encode_chat(messages(contents))]


@pytest.mark.parametrize("family", CHATS)
def test_conversations_are_those_of_transformers(family: str) -> None:
    assert isinstance(chat(family), SupportsChat)
    for contents in CONVERSATIONS:
        expected = theirs(family).apply_chat_template(messages(contents), add_generation_prompt=True)
        assert prompt_ids(chat(family), contents) == expected, contents


@pytest.mark.parametrize("family", CHATS)
def test_a_conversation_has_the_control_tokens_of_its_template_alone(family: str) -> None:
    vocabulary, control = chat(family), set(theirs(family).all_special_ids)

    def skeleton(content: str) -> list[int]:
        return [id for id in prompt_ids(vocabulary, [content, f"yes {content}", content]) if id in control]

    hostile = [*LOOKALIKES, *theirs(family).all_special_tokens, "\U000f0000<s>\U000f0001"]
    assert all(skeleton(f"a {text}{text[:-1]}{text} b") == skeleton("a b") for text in hostile)
    ids = vocabulary.encode_chat(messages([LOOKALIKES[0]]))
    assert LOOKALIKES[0] in vocabulary.decode([id for id in ids if id not in control])


# The token that ends the model's turn in each template, and what begins a prompt.
TURNS: dict[str, tuple[str, str | None]] = {
    "llama3": ("<|eot_id|>", "<|begin_of_text|>"),
    "qwen": ("<|im_end|>", None),
    "llama": ("</s>", "<s>"),
    "llama_model": ("</s>", "<s>"),
    "gemma": ("<end_of_turn>", "<bos>"),
    "gemma_model": ("<end_of_turn>", "<bos>"),
}


@pytest.mark.parametrize("family", TURNS)
def test_an_answer_ends_as_a_turn_does(family: str) -> None:
    vocabulary, reference = chat(family), theirs(family)
    end_token, begin_token = TURNS[family]
    end: int = reference.convert_tokens_to_ids(end_token)
    begin: int | None = reference.convert_tokens_to_ids(begin_token) if begin_token else None
    assert (vocabulary.eos_id, vocabulary.bos_id) == (end, begin)
    assert set(ours(family).stop_ids) <= set(vocabulary.stop_ids)
    assert vocabulary.decode([*vocabulary.encode("yes"), end, *vocabulary.encode("no")]) == "yes"


def test_a_template_without_a_begin_token_has_none(tmp_path: Path) -> None:
    path = copy_of("llama", tmp_path / "llama")
    (path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    vocabulary = open_tokenizer(str(path), "chat")
    assert isinstance(vocabulary, ChatVocabulary)
    reference = transformers.AutoTokenizer.from_pretrained(path)
    assert vocabulary.encode_chat(messages(["hi"])) == reference.apply_chat_template(messages(["hi"]))
    assert (vocabulary.bos_id, vocabulary.eos_id, ours("llama").bos_id) == (None, 2, 1)


def test_a_template_that_begins_some_conversations_only(tmp_path: Path) -> None:
    path = copy_of("llama", tmp_path / "llama")
    (path / "chat_template.jinja").write_text("{% if 'x' not in messages[0].content %}{{ bos_token }}{% endif %}hi")
    vocabulary = open_tokenizer(str(path), "chat")
    assert isinstance(vocabulary, ChatVocabulary)
    vocabulary.encode_chat(messages(["a"]))
    with pytest.raises(UserError, match="begins some conversations with a begin token, but not all"):
        vocabulary.encode_chat(messages(["x"]))


# As of models that think: a thought is opened where the model is to answer, and left out of answers that are given.
THINKING_TEMPLATE = """{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\n' + m.content.split('</think>')[-1] + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' + ('' if enable_thinking is defined and not enable_thinking else '<think>\n') }}
{%- endif %}"""
# Another kind writes the thought, empty, before a given answer.
EMPTY_THOUGHT_TEMPLATE = THINKING_TEMPLATE.replace(
    "m.role + '\n' +", "m.role + '\n' + ('<think>\n\n</think>\n\n' if m.role == 'assistant' else '') +"
)


@pytest.mark.parametrize("template", [THINKING_TEMPLATE, EMPTY_THOUGHT_TEMPLATE])
def test_a_template_that_opens_a_thought_is_refused_until_a_variable_turns_it_off(
    tmp_path: Path, template: str
) -> None:
    path = copy_of("qwen", tmp_path / "thinking")
    (path / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=r"opens <think> where.*--config\.data\.chat\.variables\.enable_thinking=False"):
        open_tokenizer(str(path), "chat")
    vocabulary = open_tokenizer(str(path), "chat", variables={"enable_thinking": False})
    assert isinstance(vocabulary, ChatVocabulary)
    reference = transformers.AutoTokenizer.from_pretrained(path)
    turns = [{"role": "system", "content": "Be brief."}, *messages(["Sort: b a"])]
    expected = reference.apply_chat_template(turns, add_generation_prompt=True, enable_thinking=False)
    assert vocabulary.encode_chat(turns) == expected
    other = open_tokenizer(str(path), "chat", variables={"enable_thinking": False, "tone": "dry"})
    assert other.fingerprint != vocabulary.fingerprint


def test_a_template_that_closes_the_thought_is_taken(tmp_path: Path) -> None:
    path = copy_of("qwen", tmp_path / "closed")
    (path / "chat_template.jinja").write_text(THINKING_TEMPLATE.replace("'<think>\n'", "'<think>\n\n</think>\n\n'"))
    assert isinstance(open_tokenizer(str(path), "chat"), ChatVocabulary)


DAMAGE = {
    "tokenizer.json": [
        (b"", "is not JSON"),
        (b"version https://git-lfs", "is not JSON"),
        (b"[]", "holds an array where a JSON object is expected"),
        (b"{}", "cannot be read"),
        (b'{"model": {"vocab": 3}}', "cannot be read"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"model": 1, "model": 2}', "twice"),
        (b'{"added_tokens": [{"id": 1' + b"0" * 5000 + b"}]}", "5001 digits"),
        (b'{"model": {"vocab": {"\\ud800": 1}}}', "half of a surrogate pair"),
    ],
    "tokenizer_config.json": [
        (b'{"eos_token": 5}', "cannot be read"),
        (b"{", "is not JSON"),
        (b'{"added_tokens_decoder": 5}', "cannot be read"),
        (b'{"model_max_length": Infinity}', "Infinity is not JSON"),
    ],
    "chat_template.jinja": [
        (b"{% if %}", "Expected an expression"),
        (b"{{ raise_exception('no') }}", "stops: no"),
        (b"\xff", "cannot be read"),
    ],
}


@pytest.mark.parametrize(("name", "data", "says"), [(name, *case) for name, cases in DAMAGE.items() for case in cases])
def test_damaged_files_are_one_clear_line(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    path = copy_of("llama3", tmp_path / "damaged")
    (path / name).write_bytes(data)
    with pytest.raises(UserError, match=says) as caught:
        open_tokenizer(str(path), "chat")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"none", b"version https://git-lfs"])
def test_a_damaged_model_is_one_clear_line(tmp_path: Path, data: bytes) -> None:
    path = copy_of("llama_model", tmp_path / "damaged")
    (path / "tokenizer.model").write_bytes(data)
    with pytest.raises(UserError, match="not a SentencePiece model"):
        open_tokenizer(str(path), "plain")


def test_what_the_library_panics_at_is_one_clear_line(tmp_path: Path) -> None:
    path = copy_of("t5", tmp_path / "damaged")
    values = json.loads((path / "tokenizer.json").read_text())
    values["post_processor"]["special_tokens"] = {}
    write_json(path / "tokenizer.json", values)
    with pytest.raises(UserError, match=r"cannot be read .PanicException") as caught:
        open_tokenizer(str(path), "plain", for_t5=True)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_say_enough(tmp_path: Path) -> None:
    path = copy_of("llama3", tmp_path / "silent")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        (path / name).unlink()
    with pytest.raises(UserError, match="names no end-of-sequence token"):
        open_tokenizer(str(path), "plain")
    with pytest.raises(UserError, match="has no chat template"):
        open_tokenizer(str(folder("t5")), "chat")
