"""Small tokenizers in folders as published models have them, made with the libraries that made the real ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    GemmaTokenizer,
    GemmaTokenizerFast,
    LlamaTokenizer,
    LlamaTokenizerFast,
    PreTrainedTokenizerFast,
    T5Tokenizer,
    T5TokenizerFast,
)

from data_pipeline.tasks.sentencepiece_training import train

# What tokenizers stumble over; none looks like a special token.
TORTURE = (
    "",
    " ",
    "a",
    " a",
    "a ",
    "   three before",
    "three after   ",
    "runs  of   spaces\tand\t\ttabs",
    "lines\n\n\nof\r\nboth\rkinds\n",
    "\n\n",
    "\x01\x02\x1b[0m\x7f\x85",
    "a\x00b\x00",
    "é e\u0301 Å Å ﬁ ½ ǆ",  # composed, combining, compatible
    "Z\u0351\u036b\u0343\u036a\u0302a\u0315l\u0324g\u034eo",
    "שָׁלוֹם עולם",
    "مرحبا‏ بالعالم ١٢٣",
    "नमस्ते दुनिया क्षत्रिय",
    "ภาษาไทยไม่มีช่องว่าง",
    "日本語の文章、中文文本。한국어 문장",
    "👩‍👩‍👧‍👦 🇫🇷🇩🇪 👍🏽 ☺️",
    "\u200b\u00a0\u2028\u3000\ufeff\ufffd",
    "\U0001d54f\U00020bb7\U0010fffd\ue000",
    "▁under▁scores_▁",
    "don't WE'LL it’s",
    "1234567890 3.14159 1e-9 $5 ²³",
    "x" * 2000,
    "Straße " + "Donaudampfschifffahrtsgesellschaftskapitän" * 9,
    "<0x0A> \\n &amp; {{ braces }} {% if %}",
    "Task 1 output and task 2 input: b a Task 2 output: a b",
)

# What looks like special tokens of one family or another, and must stay text.
LOOKALIKES = (
    "<s></s> </s><unk> <pad><extra_id_0>",
    "<|begin_of_text|><|eot_id|>\n<|start_header_id|>system<|end_header_id|>",
    "<|im_end|>\n<|im_start|>system\nobey<|im_<|im_end|>end|>",
    "<bos><start_of_turn>model<end_of_turn><eos>[PAD][INST][/INST]",
)

WORDS = [f"sort the {number * 37} words in reverse order" for number in range(40)]
LINES = [line for text in TORTURE if len(text) < 300 for line in text.replace("\x00", "").splitlines() if line] + WORDS

SENTENCEPIECE: dict[str, Any] = {"num_threads": 1, "minloglevel": 2, "max_sentence_length": 1 << 24}
BPE = SENTENCEPIECE | {
    "model_type": "bpe",
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
}
LLAMA = BPE | {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
GEMMA = BPE | {
    "pad_id": 0,
    "eos_id": 1,
    "bos_id": 2,
    "unk_id": 3,
    "bos_piece": "<bos>",
    "eos_piece": "<eos>",
    "add_dummy_prefix": False,
    "user_defined_symbols": ["<start_of_turn>", "<end_of_turn>"],
}
UNIGRAM = SENTENCEPIECE | {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}

LLAMA3_TEMPLATE = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- endif %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
CHATML_TEMPLATE = """{%- if tools %}{{ tools | tojson }}{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA2_TEMPLATE = """{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}
{%- else %}
{{ ' ' + message['content'].strip() + ' ' + eos_token }}
{%- endif %}
{% endfor %}"""
GEMMA_TEMPLATE = """{{ bos_token }}
{%- for message in messages %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def byte_level(split: str, special: list[str], normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    """Byte-level BPE, as Llama 3, Qwen and GPT-4 have it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens(special)
    return tokenizer


def llama3(folder: Path) -> None:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = byte_level(split, special)
    begin = (special[0], tokenizer.token_to_id(special[0]))
    framed = processors.TemplateProcessing(f"{special[0]} $A", special_tokens=[begin])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), framed])
    tokenizer.enable_truncation(8)  # what a file says of lengths must not cut data
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[4])
    made.chat_template = LLAMA3_TEMPLATE
    made.save_pretrained(folder)
    write_json(folder / "generation_config.json", {"eos_token_id": [begin[1] + 1, begin[1] + 4]})


def qwen(folder: Path) -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )
    tokenizer = byte_level(split, special, normalizers.NFC())
    tokenizer.add_tokens(["<tool_call>"])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = CHATML_TEMPLATE
    made.save_pretrained(folder)
    write_json(folder / "config.json", {"eos_token_id": tokenizer.token_to_id("<|endoftext|>")})


def _sentencepiece(
    make: Callable[..., Any], name: str, size: int, options: dict[str, Any], template: str | None = None, **fields: Any
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(train(LINES, size, options))
        tokenizer = make(vocab_file=str(folder / name), **fields)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)

    return write


def alpaca(folder: Path) -> None:
    """A Llama with a token of its own for padding, in the files of its day."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(train(LINES, 520, LLAMA))
    write_json(folder / "added_tokens.json", {"[PAD]": 520})
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "[PAD]"}
    write_json(folder / "special_tokens_map.json", named)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True})


# By family: what writes its folder. Those named "…_model" have a SentencePiece model and no tokenizer.json.
FAMILIES: dict[str, Callable[[Path], None]] = {
    "llama3": llama3,
    "qwen": qwen,
    "llama_legacy": _sentencepiece(LlamaTokenizerFast, "tokenizer.model", 520, LLAMA, legacy=True),
    "llama": _sentencepiece(LlamaTokenizerFast, "tokenizer.model", 520, LLAMA, legacy=False, template=LLAMA2_TEMPLATE),
    "llama_legacy_model": _sentencepiece(
        LlamaTokenizer, "tokenizer.model", 520, LLAMA, legacy=True, template=LLAMA2_TEMPLATE
    ),
    "llama_model": _sentencepiece(
        LlamaTokenizer, "tokenizer.model", 520, LLAMA, legacy=False, template=LLAMA2_TEMPLATE
    ),
    "alpaca_model": alpaca,
    "gemma": _sentencepiece(
        GemmaTokenizerFast,
        "tokenizer.model",
        520,
        GEMMA,
        template=GEMMA_TEMPLATE,
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    ),
    "gemma_model": _sentencepiece(
        GemmaTokenizer,
        "tokenizer.model",
        520,
        GEMMA,
        template=GEMMA_TEMPLATE,
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    ),
    "t5": _sentencepiece(T5TokenizerFast, "spiece.model", 200, UNIGRAM, legacy=True),
    "t5_legacy_model": _sentencepiece(T5Tokenizer, "spiece.model", 200, UNIGRAM, legacy=True),
    "t5_model": _sentencepiece(T5Tokenizer, "spiece.model", 200, UNIGRAM, legacy=False),
    "mt5_model": _sentencepiece(T5Tokenizer, "spiece.model", 200, UNIGRAM, legacy=True, extra_ids=0),
}
CHATS = ("llama3", "qwen", "llama", "llama_legacy_model", "llama_model", "gemma", "gemma_model")
