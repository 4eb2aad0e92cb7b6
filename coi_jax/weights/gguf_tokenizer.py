"""The tokenizer in a GGUF file, as the files that Hugging Face publishes: tokenizer.json, its settings, its template.

A GGUF file has the tokens, their kinds, and merges (byte-level BPE) or scores (SentencePiece). How a text is split
before merging is only named, in `tokenizer.ggml.pre`; what a name stands for is in `PRE_TOKENIZERS`, as the
tokenizer.json of the models that llama.cpp means by it has it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from coi_jax.common.errors import UserError, shorten
from coi_jax.families.published_folder import GENERATION, TEMPLATE
from coi_jax.families.published_folder import TOKENIZER_CONFIG as CONFIG
from coi_jax.tokenizers.tokenizer_files import TOKENIZER
from coi_jax.weights.gguf_parts import GgufParts

PREFIX = "tokenizer.ggml"
UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5  # kinds of tokens
SPACE = "▁"  # SentencePiece's sign for a space
LONGEST_PIECE = 128  # characters of a piece that is merged from others; SentencePiece makes up to 16
NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
# Control tokens that end a turn, where the file does not say which does.
ENDS_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>")

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
TEKKEN_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*|\p{{N}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class PreTokenizer:
    """How a byte-level tokenizer splits a text before it merges bytes.

    Attributes:
      split: makes the part before the bytes; None where GPT-2's own expression splits.
      is_nfc: whether texts are composed first.
      ignores_merges: whether a word that is a token is never split.
      begins: whether texts begin with the begin token, unless the file says otherwise.
    """

    split: Callable[[], pre_tokenizers.PreTokenizer] | None = None
    is_nfc: bool = False
    ignores_merges: bool = False
    begins: bool = False

    def parts(self) -> pre_tokenizers.PreTokenizer:
        """Return what splits a text into words of bytes."""
        if self.split is None:
            return pre_tokenizers.ByteLevel(add_prefix_space=False)
        first = self.split()
        uses_regex = isinstance(first, pre_tokenizers.Digits)
        return pre_tokenizers.Sequence([first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=uses_regex)])


def _by_expression(expression: str) -> Callable[[], pre_tokenizers.PreTokenizer]:
    return lambda: pre_tokenizers.Split(Regex(expression), "isolated")


_LLAMA3 = PreTokenizer(_by_expression(LLAMA3_SPLIT), ignores_merges=True, begins=True)
PRE_TOKENIZERS = {
    "gpt-2": PreTokenizer(),
    "smollm": PreTokenizer(lambda: pre_tokenizers.Digits(individual_digits=True)),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": PreTokenizer(_by_expression(QWEN2_SPLIT), is_nfc=True),
    "tekken": PreTokenizer(_by_expression(TEKKEN_SPLIT), ignores_merges=True, begins=True),
}


class GgufTokenizer:
    """The tokenizer in a GGUF file."""

    def __init__(self, file: GgufParts, rows: int) -> None:
        """Read the metadata.

        Args:
          file: the file.
          rows: of the embedding.

        Raises:
          UserError: the file has no tokenizer, a damaged one, or one that is not known here.
        """
        self._file = file
        self._tokens = self._list("tokens", str)
        self._kinds = self._list("token_type", int, len(self._tokens))
        if not 0 < len(self._tokens) <= rows:
            raise self._error("tokens", f"has {len(self._tokens)} tokens for {rows} rows of the embedding")
        self._special = {name: id for name, field in NAMES.items() if (id := self._id(f"{field}_token_id")) is not None}
        if "eos_token" not in self._special:
            raise self._error("eos_token_id", "is missing, so that nothing would end an answer")

    def files(self, max_length: int) -> dict[str, bytes]:
        """Return the files of the tokenizer by name.

        Args:
          max_length: tokens that the model reads.

        Raises:
          UserError: the tokens and their merges do not make a tokenizer.
        """
        template = self._file.metadata.get("tokenizer.chat_template")
        settings = {name: self._tokens[id] for name, id in self._special.items()} | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],  # or it returns token types, which models refuse
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_length,
        }
        try:
            made = self._make().to_str(pretty=True)
        except UserError:
            raise
        except BaseException as error:  # the library raises nothing narrower than Exception, and panics
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise self._error("tokens", f"do not make a tokenizer ({shorten(str(error), 100)})") from None
        found = {TOKENIZER: made.encode("utf-8"), CONFIG: _json(settings), GENERATION: _json(self.generation_ids())}
        return found | ({TEMPLATE: template.encode("utf-8")} if isinstance(template, str) else {})

    def ids(self) -> dict[str, int | None]:
        """Return the ids of special tokens that a config.json has: None, and no default, where there is none."""
        return {f"{name}_id": self._special.get(name) for name in ("bos_token", "eos_token", "pad_token")}

    def generation_ids(self) -> dict[str, Any]:
        """Return the ids that a generation_config.json has: answers may also end with the end of a turn."""
        turn = self._id("eot_token_id")
        controls = {token: id for id, token in enumerate(self._tokens) if self._kinds[id] == CONTROL}
        turns = [turn] if turn is not None else [controls[text] for text in ENDS_OF_TURN if text in controls]
        ends = list(dict.fromkeys([self._special["eos_token"], *turns]))
        return self.ids() | {"eos_token_id": ends if len(ends) > 1 else ends[0]}

    def _error(self, name: str, hint: str) -> UserError:
        return self._file.error(f"{hint}; take another file, or the published tokenizer", f"{PREFIX}.{name}")

    def _list(self, name: str, kind: type, length: int | None = None) -> list[Any]:
        found = self._file.metadata.get(f"{PREFIX}.{name}")
        if isinstance(found, list) and all(type(item) is kind for item in found) and length in (None, len(found)):
            return found
        raise self._error(name, f"is no list of {length or 'some'} {kind.__name__}")

    def _id(self, name: str) -> int | None:
        id = self._file.metadata.get(f"{PREFIX}.{name}")
        if id is not None and not (type(id) is int and 0 <= id < len(self._tokens)):
            raise self._error(name, f"= {shorten(id, 40)} is none of {len(self._tokens)} tokens")
        return id

    def _flag(self, name: str, default: bool) -> bool:
        return bool(self._file.metadata.get(f"{PREFIX}.{name}", default))

    def _make(self) -> Tokenizer:
        kind = self._file.metadata.get(f"{PREFIX}.model")
        if kind == "gpt2":
            made, begins = self._make_byte_level()
        elif kind == "llama":
            made, begins = self._make_sentencepiece(), True
        else:
            raise self._error("model", f"= {shorten(kind, 40)} is no tokenizer that is known here")
        for special in (False, True):
            added = (UNKNOWN, CONTROL) if special else (USER_DEFINED,)
            tokens = [token for token, kind in zip(self._tokens, self._kinds, strict=True) if kind in added]
            made.add_tokens([AddedToken(token, normalized=False, special=special) for token in tokens])
        self._surround(made, begins)
        return made

    def _surround(self, made: Tokenizer, begins: bool) -> None:
        """Let a tokenizer put the begin and end tokens around a text, as far as the file asks for them."""
        adds = {"bos_token": self._flag("add_bos_token", begins), "eos_token": self._flag("add_eos_token", False)}
        around = {name: self._tokens[self._special[name]] for name in adds if adds[name] and name in self._special}
        if around:
            parts = [around.get("bos_token"), "$A", around.get("eos_token")]
            special = [(token, self._special[name]) for name, token in around.items()]
            made.post_processor = processors.TemplateProcessing(
                [part for part in parts if part], special_tokens=special
            )

    def _vocabulary(self) -> dict[str, int]:
        """Return the ids of the tokens; rows that only pad the embedding are no tokens."""
        pairs = zip(self._tokens, self._kinds, strict=True)
        kept = [(token, id) for id, (token, kind) in enumerate(pairs) if kind != UNUSED or token != f"[PAD{id}]"]
        found = dict(kept)
        if len(found) < len(kept):
            raise ValueError("a token is there twice")
        return found

    def _make_byte_level(self) -> tuple[Tokenizer, bool]:
        name = self._file.metadata.get(f"{PREFIX}.pre")
        if name not in PRE_TOKENIZERS:
            hint = f"= {shorten(name, 40)} is no pre-tokenizer that is known here ({', '.join(PRE_TOKENIZERS)})"
            raise self._error("pre", hint)
        rules = PRE_TOKENIZERS[name]
        merges = [tuple(merge.split(" ")) for merge in self._list("merges", str)]
        made = Tokenizer(models.BPE(self._vocabulary(), merges, ignore_merges=rules.ignores_merges))
        if rules.is_nfc:
            made.normalizer = normalizers.NFC()
        made.pre_tokenizer, made.decoder = rules.parts(), decoders.ByteLevel()
        return made, rules.begins

    def _make_sentencepiece(self) -> Tokenizer:
        vocabulary = self._vocabulary()
        merges = _merges(vocabulary, self._list("scores", float, len(self._tokens)))
        unknown = self._tokens[self._special.get("unk_token", self._kinds.index(UNKNOWN))]
        made = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
        prefix = [normalizers.Prepend(SPACE)] if self._flag("add_space_prefix", True) else []
        made.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
        undo = [decoders.Strip(" ", 1, 0)] if prefix else []
        made.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *undo]
        )
        return made


def _merges(vocabulary: Mapping[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Return the merges of a SentencePiece model, in the order in which it does them.

    Args:
      vocabulary: ids of the pieces.
      scores: by id; the pair whose piece has the highest score is merged first.
    """
    found: list[tuple[float, tuple[str, str]]] = []
    for piece, id in vocabulary.items():
        pairs = [(piece[:place], piece[place:]) for place in range(1, min(len(piece), LONGEST_PIECE))]
        known = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        found += [(scores[id], pair) for pair in sorted(known, key=lambda pair: [vocabulary[part] for part in pair])]
    # Pieces of one score in the order of transformers (`convert_slow_tokenizer.py`): the longest beginning first.
    found.sort(key=lambda item: (-item[0], -len(item[1][0]), -len(item[1][1])))
    return [pair for _, pair in found]


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
