"""Readers of published files: tensors, GGUF, tokenizers, chat templates; and token caches and stored replies."""

import functools
import hashlib
import io
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import sentencepiece
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from safetensors.numpy import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from coi_jax.common.storage import Folder
from coi_jax.config.pretrained import find
from coi_jax.data import token_cache
from coi_jax.families.published_config import from_hf_config
from coi_jax.tokenizers.chat_template import ChatTemplate
from coi_jax.tokenizers.published import open_tokenizer
from coi_jax.tokenizers.vocabulary import read_sentencepiece
from coi_jax.weights.gguf_model import GgufModel
from coi_jax.weights.gguf_parts import GgufParts
from coi_jax.weights.gguf_tokenizer import GgufTokenizer
from coi_jax.weights.safetensors_files import INDEX, SINGLE, TensorFolder
from tests.helpers.fuzzing import Target
from tests.helpers.mutations import mutate_bytes, mutate_json_text, mutate_text
from tests.helpers.token_caches import make_chain
from tests.soak.targets.scratch import read_file, read_files

WORDS = ["sort the words in reverse order", "count 1 2 3 pears", "a b c d e f g h i j", "Ünïcödé 日本"] * 8
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = (
    CHATML,
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ bos_token + m.content|trim }}{% endfor %}",
    "{%- set ns = namespace(x=0) %}{% for m in messages %}{% set ns.x = ns.x + 1 %}{{ m.role * ns.x }}{% endfor %}",
    "{{ raise_exception('no') if not messages }}{{ strftime_now('%Y') }}{{ messages[0]['content'][::-1] }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{{ ''.__class__.__mro__ }}{{ self._TemplateReference__context }}{{ cycler.__init__.__globals__ }}",
)
MESSAGES = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})


@functools.cache
def _tensors() -> bytes:
    values: dict[str, np.ndarray] = {
        "model.embed_tokens.weight": np.ones((8, 4), np.float32),
        "model.norm.weight": np.ones(4, np.float16),
        "empty": np.ones((0, 4), np.float32),
    }
    return bytes(save(values, metadata={"format": "pt"}))


def _tensor_file(rng: random.Random) -> bytes:
    """Return a safetensors file with a damaged header of the right length, or damaged bytes."""
    data = _tensors()
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = mutate_json_text(data[8 : 8 + length].decode(), rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _read_tensors(folder: Path) -> None:
    tensors = TensorFolder(Folder(folder, "config.weights.folder"))
    for key in tensors.entries:
        tensors.read(key)


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def _indexed(rng: random.Random) -> dict[str, bytes]:
    index = {"metadata": {"total_size": 144}, "weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    parts = [bytes(save({key: np.ones(3, np.float32)})) for key in "ab"]
    shown = rng.sample(range(2), rng.choice((1, 2, 2)))
    return {INDEX: mutate_json_text(json.dumps(index), rng), **{SHARDS[place]: parts[place] for place in shown}}


@functools.cache
def _gguf() -> bytes:
    """Return a Llama of one layer with a byte-level tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_block_count(1)
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_feed_forward_length(32)
        writer.add_head_count(2)
        writer.add_head_count_kv(1)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(1e4)
        tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab", "▁", "▁a"]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0])
        writer.add_token_types([2, 3, 3, 1, 1, 1, 1, 1])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template(CHATML)
        shapes = {
            "token_embd": (8, 32),
            "output": (8, 32),
            "output_norm": (32,),
            "blk.0.attn_norm": (32,),
            "blk.0.ffn_norm": (32,),
            "blk.0.attn_q": (32, 32),
            "blk.0.attn_k": (16, 32),
            "blk.0.attn_v": (16, 32),
            "blk.0.attn_output": (32, 32),
            "blk.0.ffn_gate": (32, 32),
            "blk.0.ffn_up": (32, 32),
            "blk.0.ffn_down": (32, 32),
        }
        for name, shape in shapes.items():
            values = np.ones(shape, np.float32)
            kind = gguf.GGMLQuantizationType.Q8_0 if len(shape) > 1 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _gguf_file(rng: random.Random) -> bytes:
    """Return a damaged GGUF file: two times in three where its header is, which is a small part of it."""
    data = _gguf()
    header = data.index(b"blk.0.ffn_down.weight") + 60 if rng.random() < 0.7 else len(data)
    return mutate_bytes(data[:header], rng) + data[header:]


def _read_gguf(path: Path) -> None:
    with GgufParts([path], "src") as file:
        model = GgufModel(file)
        tokenizer = GgufTokenizer(file, model.config["vocab_size"])
        from_hf_config(model.config | tokenizer.ids())
        tokenizer.files(model.config["max_position_embeddings"])
        for key in model.keys:
            model.read(key)


@functools.cache
def _tokenizer_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    tokenizer.add_special_tokens(["<|end|>", "<|im_start|>", "<|im_end|>"])
    return str(tokenizer.to_str())


@functools.cache
def _unigram_json() -> str:
    model = models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("▁a", -1.5), ("b", -2.0), ("▁", -3.0)], 0, False)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return str(tokenizer.to_str())


TOKENIZER_CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|im_end|>",
    "pad_token": {"content": "<|end|>", "lstrip": False, "special": True},
    "additional_special_tokens": ["<|im_start|>"],
    "chat_template": CHATML,
    "added_tokens_decoder": {"60": {"content": "<|end|>", "special": True, "single_word": False}},
}
OTHERS = {
    "special_tokens_map.json": {"eos_token": "<|im_end|>"},
    "generation_config.json": {"eos_token_id": [61, 62], "pad_token_id": 0},
    "config.json": {"model_type": "llama", "eos_token_id": 62},
    "added_tokens.json": {"[PAD]": 63},
    "chat_template.json": {"chat_template": [{"name": "default", "template": CHATML}]},
}


def _tokenizer_folder(rng: random.Random) -> dict[str, bytes]:
    model = _tokenizer_json() if rng.random() < 0.7 else _unigram_json()
    found = {"tokenizer.json": model, "tokenizer_config.json": json.dumps(TOKENIZER_CONFIG)}
    found |= {name: json.dumps(value) for name, value in OTHERS.items() if rng.random() < 0.3}
    damaged = rng.choice([*found])
    data = {name: text.encode() for name, text in found.items()}
    return data | {damaged: mutate_json_text(found[damaged], rng)}


def _read_tokenizer(folder: Path) -> None:
    vocabulary = open_tokenizer(str(folder), "plain")
    vocabulary.decode(vocabulary.encode("sort <|im_end|> a 日\x00"))


@functools.cache
def _sentencepiece() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS),
        model_writer=model,
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()


def _sentencepiece_folder(rng: random.Random) -> dict[str, bytes]:
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": rng.random() < 0.5}
    if rng.random() < 0.5:
        return {
            "tokenizer.model": _sentencepiece(),
            "tokenizer_config.json": mutate_json_text(json.dumps(settings), rng),
        }
    return {
        "tokenizer.model": mutate_bytes(_sentencepiece(), rng),
        "tokenizer_config.json": json.dumps(settings).encode(),
    }


def _read_vocabulary(path: Path) -> None:
    vocabulary = read_sentencepiece(path)
    vocabulary.decode(vocabulary.encode("sort the words 日本 \x00"))


def _template(rng: random.Random) -> str:
    return mutate_text(rng.choice(TEMPLATES), rng, TEMPLATES)


def _render(text: str) -> None:
    if text.isascii() or text == text.encode("utf-8", "replace").decode():  # a file holds no half of a surrogate pair
        ChatTemplate(text, {"bos_token": "<s>"}, "x").render(MESSAGES, add_generation_prompt=True)


def _published(rng: random.Random) -> dict[str, bytes]:
    """Return the small files of a published model, one of them damaged."""
    config = {"model_type": "llama", "vocab_size": 64, "eos_token_id": 2, "num_hidden_layers": 1}
    found: dict[str, Any] = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": [2], "pad_token_id": 0},
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "tokenizer.json": {},
    }
    damaged = rng.choice([*found])
    texts = {name: json.dumps(value) for name, value in found.items()}
    return {name: text.encode() for name, text in texts.items()} | {damaged: mutate_json_text(texts[damaged], rng)}


def _read_published(folder: Path) -> None:
    find({"weights": {"folder": str(folder)}}, {}, None)


RECORD = token_cache.pack_record(
    np.arange(5, dtype=np.int32), np.arange(3, dtype=np.int32), json.dumps(make_chain(1, 2).row()).encode()
)


def _make_cache(records: Sequence[bytes]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = ArrayRecordWriter(str(folder / token_cache.RECORDS), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        lengths = np.array([[5, 3]] * len(records), np.int32)
        np.save(folder / token_cache.LENGTHS, lengths)
        content = token_cache.cache_content(epath.Path(folder), "k", lengths)
        (folder / token_cache.INFO).write_text(json.dumps(content), encoding="utf-8")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@functools.cache
def _cache() -> dict[str, bytes]:
    return _make_cache([RECORD] * 3)


def _damaged_cache(rng: random.Random) -> dict[str, bytes]:
    """Return a cache with a damaged file, or a whole one of records that no writer made."""
    if rng.random() < 0.3:
        return _make_cache([RECORD, mutate_bytes(RECORD, rng)])
    found = dict(_cache())
    name = rng.choice((token_cache.INFO, token_cache.LENGTHS, token_cache.RECORDS, token_cache.RECORDS))
    data = mutate_json_text(found[name].decode(), rng) if name == token_cache.INFO else mutate_bytes(found[name], rng)
    size = len(found[token_cache.RECORDS])
    if name == token_cache.LENGTHS and rng.random() < 0.7:
        info = json.loads(found[token_cache.INFO]) | {"lengths_sha256": hashlib.sha256(data).hexdigest()}
        found[token_cache.INFO] = json.dumps(info).encode()
    if name == token_cache.RECORDS:  # the size is checked against cache.json
        data = (data + bytes(size))[:size]
    return found | {name: data}


def _read_cache(folder: Path) -> None:
    cache = token_cache.open_cache(folder, "k")
    if cache is not None:
        cache.ids(range(len(cache)))
        cache.examples(range(len(cache)))


TARGETS: dict[str, Target] = {
    "safetensors": Target(_tensor_file, lambda data: read_files({SINGLE: data}, _read_tensors)),
    "safetensors_index": Target(_indexed, lambda given: read_files(given, _read_tensors)),
    "gguf": Target(_gguf_file, read_file("x.gguf", _read_gguf)),
    "published_folder": Target(_published, lambda given: read_files(given, _read_published)),
    "tokenizer_json": Target(_tokenizer_folder, lambda given: read_files(given, _read_tokenizer)),
    "tokenizer_sentencepiece": Target(_sentencepiece_folder, lambda given: read_files(given, _read_tokenizer)),
    "sentencepiece_model": Target(
        lambda rng: mutate_bytes(_sentencepiece(), rng), read_file("x.model", _read_vocabulary)
    ),
    "chat_template": Target(_template, _render),
    # ArrayRecord starts threads, whose stacks take address space, and no memory.
    "token_cache": Target(_damaged_cache, lambda given: read_files(given, _read_cache), memory=2**33),
}
