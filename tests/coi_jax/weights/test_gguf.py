"""GGUF files become published folders: the same logits and ids, and one line for what cannot be read."""

import json
import random
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaTokenizerFast,
    LlamaConfig,
    LlamaTokenizerFast,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.smollm3.configuration_smollm3 import SmolLM3Config

from coi_jax import convert
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config
from coi_jax.tokenizers.published import open_tokenizer
from coi_jax.weights.gguf_file import GgufFile
from coi_jax.weights.gguf_import import import_gguf
from coi_jax.weights.gguf_tokenizer import PRE_TOKENIZERS
from data_pipeline.tasks.sentencepiece_training import train
from tests.helpers import gguf_files, tokenizer_folders
from tests.helpers.paths import QUICKSTART
from tests.helpers.published_models import tensors
from tests.helpers.reference_models import reference
from tests.helpers.tokenizer_folders import CHATML_TEMPLATE, LINES, LLAMA, LOOKALIKES, TORTURE
from tests.helpers.tokenizer_folders import GEMMA as GEMMA_PIECES

SIZES: dict[str, Any] = dict(
    vocab_size=552,  # more rows than any of the tokenizers has tokens
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    attn_implementation="eager",
    tie_word_embeddings=False,
)
LLAMA3_ROPE = dict(
    rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
)
GEMMA = SIZES | dict(num_hidden_layers=7, sliding_window=5, query_pre_attn_scalar=16, tie_word_embeddings=True)
LINEAR = dict(rope_type="linear", factor=8.0)


def smollm(folder: Path) -> None:
    """SmolLM2's tokenizer: each digit alone, then GPT-2's expression; texts do not begin with a token."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[AddedToken(token, special=True) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[1], eos_token=special[2], pad_token=special[2]
    )
    made.chat_template = CHATML_TEMPLATE
    made.save_pretrained(folder)


def llama2(folder: Path) -> None:
    """Llama 2's published tokenizer.json, which has a space before the first word and after each special token."""
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(train(LINES, 520, LLAMA))
    made = LlamaTokenizerFast(str(folder / "tokenizer.model"), legacy=True, add_prefix_space=True, from_slow=True)
    made.save_pretrained(folder)


# By name: the model, its tokenizer's folder and pre-tokenizer, and the type of the matrices.
CASES: dict[str, tuple[PretrainedConfig, Any, str, Kind]] = {
    "SmolLM2": (LlamaConfig(**SIZES | dict(tie_word_embeddings=True)), smollm, "smollm", Kind.Q4_1),
    "Llama 3.2": (
        LlamaConfig(**SIZES | dict(rope_theta=500_000.0, rope_scaling=LLAMA3_ROPE)),
        tokenizer_folders.llama3,
        "llama-bpe",
        Kind.Q8_0,
    ),
    "Llama 2": (LlamaConfig(**SIZES), llama2, "", Kind.F16),
    "Qwen 2.5": (Qwen2Config(**SIZES), tokenizer_folders.qwen, "qwen2", Kind.Q5_0),
    "Qwen 3": (Qwen3Config(**SIZES), tokenizer_folders.qwen, "qwen2", Kind.BF16),
    "SmolLM3": (
        SmolLM3Config(**SIZES | dict(num_hidden_layers=5, rope_theta=2e6, pad_token_id=None)),
        tokenizer_folders.llama3,
        "llama-bpe",
        Kind.Q4_0,
    ),
    "Gemma 2": (
        Gemma2Config(**GEMMA | dict(num_hidden_layers=3, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)),
        tokenizer_folders.FAMILIES["gemma"],
        "",
        Kind.F16,
    ),
    "Gemma 3": (
        Gemma3TextConfig(**GEMMA | dict(rope_scaling=LINEAR)),
        tokenizer_folders.FAMILIES["gemma"],
        "",
        Kind.F32,
    ),
}


def run(*arguments: object) -> int:
    return cli.run(lambda: convert.main([str(argument) for argument in arguments]))


@pytest.mark.parametrize("name", CASES)
def test_a_file_becomes_a_folder_with_the_same_logits_and_ids(name: str, tmp_path: Path) -> None:
    config, tokenizer, pre, kind = CASES[name]
    theirs = reference(config)
    tokenizer(tmp_path / "tokenizer")
    gguf_files.write(tmp_path / "model.gguf", theirs, tmp_path / "tokenizer", kind, pre)
    assert run("--src", tmp_path / "model.gguf", "--out", tmp_path / "model") == 0
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager").eval()
    assert type(found) is type(theirs)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(2, 300, (2, 40)))
    with torch.no_grad():
        torch.testing.assert_close(found(tokens).logits, theirs(tokens).logits, atol=2e-5, rtol=1e-5)
    due = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    ours = AutoTokenizer.from_pretrained(tmp_path / "model")
    for text in (*TORTURE, *LOOKALIKES):
        ids = due(text).input_ids
        assert ours(text).input_ids == ids, text
        assert ours.decode(ids, skip_special_tokens=True) == due.decode(ids, skip_special_tokens=True)
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == (due.bos_token, due.eos_token, due.pad_token)
    assert ours.chat_template == due.chat_template


def test_sentencepiece_with_pieces_of_spaces_and_lines(tmp_path: Path) -> None:
    """Gemma has pieces for runs of spaces, which its files hold as spaces, and for runs of lines."""
    runs = ["▁▁", "▁▁▁", "\n\n", "<div>"]
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.model").write_bytes(
        train(LINES, 520, GEMMA_PIECES | {"user_defined_symbols": runs})
    )
    GemmaTokenizerFast(str(tmp_path / "tokenizer" / "tokenizer.model")).save_pretrained(tmp_path / "tokenizer")
    theirs = reference(Gemma3TextConfig(**GEMMA | dict(num_hidden_layers=1)))
    gguf_files.write(tmp_path / "model.gguf", theirs, tmp_path / "tokenizer", Kind.Q8_0)
    import_gguf(str(tmp_path / "model.gguf"), str(tmp_path / "model"), None, 2**30)
    ours = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    due = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer" / "tokenizer.model"))
    for text in (*TORTURE, "a  b   c    d", "  a\n\n\nb<div> c", "\t \n \n\n"):
        if "\x00" not in text and "▁" not in text:
            ids = ours.encode(text, add_special_tokens=False).ids
            assert ids == due.encode(text), text
            assert ours.decode(ids) == text


@pytest.fixture(scope="module")
def smollm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole GGUF file, tokenizer and all."""
    folder = tmp_path_factory.mktemp("smollm")
    smollm(folder / "tokenizer")
    config = LlamaConfig(**SIZES | dict(num_hidden_layers=1, rms_norm_eps=1e-5, tie_word_embeddings=True))
    gguf_files.write(folder / "model.gguf", reference(config), folder / "tokenizer", Kind.Q8_0, "smollm")
    return folder / "model.gguf"


def test_the_folder_becomes_a_run_and_its_answers_end_with_the_turn(smollm_file: Path, tmp_path: Path) -> None:
    assert run("--src", smollm_file, "--out", tmp_path / "model", "--dtype", "bfloat16") == 0
    assert {tensor.dtype.name for tensor in tensors(tmp_path / "model").values()} == {"bfloat16"}
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["rms_norm_eps"] == 1e-5  # not 9.999999747378752e-06, the float32 next to it
    assert config["torch_dtype"] == "bfloat16"
    assert run("--src", tmp_path / "model", "--out", tmp_path / "run", "--config", QUICKSTART) == 0
    assert run("--src", tmp_path / "run", "--out", tmp_path / "back") == 0
    there, back = tensors(tmp_path / "model"), tensors(tmp_path / "back")
    assert {key: value.tobytes() for key, value in back.items()} == {key: t.tobytes() for key, t in there.items()}
    assert {*AutoTokenizer.from_pretrained(tmp_path / "back")("a")} == {"input_ids", "attention_mask"}
    first, again = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("model", "back"))
    assert [again(text).input_ids for text in TORTURE] == [first(text).input_ids for text in TORTURE]
    vocabulary = open_tokenizer(str(tmp_path / "model"), "chat")
    assert vocabulary.bos_id is None or vocabulary.control_token(vocabulary.bos_id) == "<|im_start|>"
    assert vocabulary.control_token(vocabulary.eos_id) == "<|im_end|>"


def finish(writer: GGUFWriter, reader: gguf.GGUFReader) -> None:
    """Write the tensors of another file after the metadata."""
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def split(source: Path, folder: Path, count: int) -> list[Path]:
    """Write a GGUF file in parts, as llama-gguf-split does: metadata in the first, as many tensors in each."""
    reader = gguf.GGUFReader(source)
    writer = GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=-(-len(reader.tensors) // count))
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(
                name, field.contents(), field.types[0], field.types[1] if len(field.types) > 1 else None
            )
    finish(writer, reader)
    return sorted(folder.glob("*.gguf"))


def test_any_part_of_a_model_stands_for_all(smollm_file: Path, tmp_path: Path) -> None:
    parts = split(smollm_file, tmp_path, 3)
    assert [part.name for part in parts] == [f"model-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert run("--src", smollm_file, "--out", tmp_path / "whole") == 0
    for number, part in enumerate((parts[0], parts[2])):
        assert run("--src", part, "--out", tmp_path / f"model{number}") == 0
        there = {path.name: path.read_bytes() for path in (tmp_path / f"model{number}").iterdir()}
        assert there == {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}


def test_parts_that_do_not_make_a_model_are_one_line(
    smollm_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is missing, one is at another's place, one is of another model, and all are missing."""
    first, second, third = split(smollm_file, tmp_path, 3)
    kept = second.read_bytes()

    def error() -> str:
        capsys.readouterr()
        assert run("--src", first, "--out", tmp_path / "model") == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return line

    second.unlink()
    assert f"is one of 3 parts, and 1 are missing beside it: {second.name}; fetch them too" in error()
    second.write_bytes(third.read_bytes())
    assert "is another part than its name says (split.no = 2)" in error()
    second.write_bytes(smollm_file.read_bytes())
    assert "is one of 1 parts by its metadata, and of 3 by its name; fetch it again" in error()
    second.write_bytes(kept[: len(kept) // 2])
    assert f"{second}: is no whole GGUF file (cut short" in error()
    for part in (first, second, third):
        part.unlink()
    assert f"{first}: no such file; check the path" in error()


def test_a_file_in_a_bucket_is_read_too(smollm_file: Path, tmp_path: Path, bucket: str) -> None:
    from etils import epath

    epath.Path(f"{bucket}/model.gguf").write_bytes(smollm_file.read_bytes())
    import_gguf(f"{bucket}/model.gguf", str(tmp_path / "there"), None, 2**30)
    import_gguf(str(smollm_file), str(tmp_path / "here"), None, 2**30)
    here, there = tensors(tmp_path / "here"), tensors(tmp_path / "there")
    assert {key: value.tobytes() for key, value in here.items()} == {key: t.tobytes() for key, t in there.items()}


def test_every_pre_tokenizer_splits_as_the_published_one() -> None:
    text = "It's 2024's 12345 ABCdef\n\n  WE'LL é٣٤ /a/b//\r\n"
    due = {
        "gpt-2": ["It", "'s", " 2024", "'s", " 12345", " ABCdef", "\n\n ", " WE", "'", "LL", " é", "٣٤", " /", "a"],
        "smollm": ["It", "'s", " ", "2", "0", "2", "4", "'s", " ", "1", "2", "3", "4", "5", " ABCdef"],
        "llama-bpe": ["It", "'s", " ", "202", "4", "'s", " ", "123", "45", " ABCdef", "\n\n", " ", " WE", "'LL"],
        "qwen2": ["It", "'s", " ", "2", "0", "2", "4", "'s", " ", "1", "2", "3", "4", "5", " ABCdef", "\n\n"],
        "tekken": ["It", "'s", " ", "2", "0", "2", "4", "'s", " ", "1", "2", "3", "4", "5", " ABCdef", "\n\n"],
    }
    alphabet = decoders.ByteLevel()
    for name, parts in due.items():
        found = [alphabet.decode([part]) for part, _ in PRE_TOKENIZERS[name].parts().pre_tokenize_str(text)]
        assert found[: len(parts)] == parts, name
        assert "".join(found) == text


def change(source: Path, path: Path, **values: Any) -> Path:
    """Write a GGUF file again with other values in its metadata; None leaves one out."""
    reader = gguf.GGUFReader(source)
    architecture = values.get("general.architecture", "llama")
    writer = GGUFWriter(path, architecture)
    for name, field in reader.fields.items():
        value = values.get(name, field.contents())
        if not name.startswith("GGUF.") and name != "general.architecture" and value is not None:
            types = [gguf.GGUFValueType.STRING] if isinstance(value, str) else field.types
            writer.add_key_value(name, value, types[0], types[1] if len(types) > 1 else None)
    for name, value in values.items():
        if name not in reader.fields:
            kinds = {int: gguf.GGUFValueType.UINT32, str: gguf.GGUFValueType.STRING, float: gguf.GGUFValueType.FLOAT32}
            writer.add_key_value(name, value, kinds[type(value)])
    finish(writer, reader)
    return path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"general.architecture": "mamba"}, "general.architecture = mamba: cannot be read from GGUF; llama, qwen2,"),
        ({"llama.block_count": 3}, "blk.1.attn_k.weight: is missing"),
        ({"llama.block_count": 10**9}, "llama.block_count = 1000000000: is no such number"),
        ({"llama.attention.key_length": 32}, "has the shape (64, 64), where (128, 64) is due"),
        ({"llama.feed_forward_length": 0}, "llama.feed_forward_length = 0"),
        ({"llama.expert_count": 8}, "is a mixture of experts"),
        ({"llama.attention.sliding_window": 4096}, "has a sliding window"),
        ({"llama.rope.dimension_count": 8}, "rotates 8 of 16 dimensions"),
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, "longrope: is not computed here"),
        ({"llama.context_length": "long"}, "llama.context_length = long: is no int"),
        ({"split.count": 3}, "is one of several parts"),
        ({"tokenizer.ggml.pre": "kimi-k2"}, "is no pre-tokenizer that is known here (gpt-2, smollm,"),
        ({"tokenizer.ggml.model": "bert"}, "= bert is no tokenizer that is known here"),
        ({"tokenizer.ggml.eos_token_id": None}, "eos_token_id: is missing"),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "= 1000000 is none of 552 tokens"),
        ({"tokenizer.ggml.tokens": ["a"]}, "token_type: is no list of 1 int"),
        ({"tokenizer.ggml.merges": ["no token"]}, "do not make a tokenizer"),
        ({"tokenizer.ggml.merges": None}, "merges: is no list"),
    ],
)
def test_a_model_that_cannot_be_read_is_one_line(
    smollm_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], said: str
) -> None:
    path = change(smollm_file, tmp_path / "model.gguf", **values)
    capsys.readouterr()
    assert run("--src", path, "--out", tmp_path / "model") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def header(*parts: bytes, tensors: int = 0, fields: int = 0) -> bytes:
    """The beginning of a GGUF file."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, fields) + b"".join(parts)


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def tensor(name: bytes, *shape: int, kind: int = 0, start: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, start)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut short in its header, at 0 bytes"),
        (b"PK\x03\x04" + bytes(100), "it begins with other bytes"),
        (b"GGUF\x00\x00\x00\x03" + bytes(100), "version 50331648, of 2 and 3"),
        (header(tensors=2**63), "9223372036854775808 tensors, at most"),
        (header(fields=2**40), "1099511627776 fields, at most"),
        (header(text(b"k", 2**62), fields=1), "bytes of a name, at most"),
        (header(text(b"k") + struct.pack("<I", 8) + text(b"", 2**27), fields=1), "cut short in its header"),
        (header(text(b"k") + struct.pack("<IIQ", 9, 4, 2**60), fields=1), "items of an array, at most"),
        (header(text(b"k") + struct.pack("<IIQ", 9, 4, 2**20), fields=1), "cut short in its header"),
        (header(text(b"k") + struct.pack("<IIQ", 9, 9, 1), fields=1), "a value of type 9"),
        (header(text(b"k") + struct.pack("<I", 77), fields=1), "a value of type 77"),
        (header(*[text(b"k") + struct.pack("<IB", 7, 1)] * 2, fields=2), "the field k twice"),
        (header(text(b"\xff\xfe") + struct.pack("<IB", 7, 1), fields=1), "utf-8"),
        (header(text(b"general.alignment") + struct.pack("<II", 4, 3), fields=1), "no power of two"),
        (header(*[tensor(b"t", 4)] * 2, tensors=2) + bytes(99), "the tensor t twice"),
        (header(tensor(b"t", 4, kind=999), tensors=1) + bytes(99), "is of the unknown type 999"),
        (header(tensor(b"t", *[1] * 9), tensors=1) + bytes(99), "has 9 dimensions"),
        (header(tensor(b"t", 2**40, 2**40), tensors=1) + bytes(99), "has the shape"),
        (header(tensor(b"t", 33, kind=8), tensors=1) + bytes(99), "has the shape (33,), in blocks of 32"),
        (header(tensor(b"t", 2**30), tensors=1) + bytes(99), "cut short"),
        (header(tensor(b"t", 4, start=2**62), tensors=1) + bytes(99), "cut short"),
        (header(tensor(b"t", 4, start=5), tensors=1) + bytes(99), "begins at byte 5"),
        (header(tensor(b"t", 16), tensor(b"u", 4, start=32), tensors=2) + bytes(200), "t overlaps u"),
    ],
)
def test_a_damaged_or_hostile_header_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, said: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    assert run("--src", path, "--out", tmp_path / "model") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "fetch it again" in error
    assert error.count("\n") == 1


def test_no_damage_ends_in_another_error(smollm_file: Path, tmp_path: Path) -> None:
    whole = smollm_file.read_bytes()
    with GgufFile(smollm_file, "src") as file:
        begin = min(tensor.start for tensor in file.tensors.values())
    path, out = tmp_path / "model.gguf", tmp_path / "model"
    draw = random.Random(0)
    cut = [whole[: draw.randrange(len(whole))] for _ in range(30)]
    for data in cut:
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"cut short|other bytes"):
            import_gguf(str(path), str(out), None, 2**30)
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[draw.randrange(begin)] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            import_gguf(str(path), str(out), None, 2**30)
        except UserError:
            assert not out.exists()
        shutil.rmtree(out, ignore_errors=True)


def test_what_is_missing_to_read_them_is_named(
    smollm_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert run("--src", smollm_file, "--out", tmp_path / "model") == 2
    assert "pip install 'coi-jax[gguf]'" in capsys.readouterr().err


def test_weights_in_a_gguf_file_are_converted_first(smollm_file: Path) -> None:
    with pytest.raises(UserError, match=r"is a GGUF file; make a folder of it: python -m coi_jax\.convert --src"):
        load_config(str(QUICKSTART), {"weights.folder": str(smollm_file)})


@pytest.mark.parametrize("flag", ["--adapters", "--config.seed=1"])
def test_flags_that_a_folder_has_no_use_for_are_refused(
    smollm_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert run("--src", smollm_file, "--out", tmp_path / "model", flag) == 2
    assert "becomes a published folder, which has neither adapters nor a config" in capsys.readouterr().err


def test_no_such_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--src", tmp_path / "none.gguf", "--out", tmp_path / "model") == 2
    assert capsys.readouterr().err == f"error: src: {tmp_path / 'none.gguf'}: no such file; check the path\n"
