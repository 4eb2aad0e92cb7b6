"""The tokenizer of a published model as a vocabulary, from the files in the model's folder.

Ids are those of `transformers`, but for one thing: no text of an example becomes a control token, whatever it looks
like. Control tokens come from where they belong: the begin id from the loader, the end id from the task, those of a
chat from its template.
"""

import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import sentencepiece
import tokenizers

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.tokenizers.chat_template import ChatTemplate, Message
from coi_jax.tokenizers.pieces import JsonPieces, Pieces, SentencePieces, load
from coi_jax.tokenizers.tokenizer_files import CONFIG, SENTENCEPIECE, TOKENIZER, TokenizerFiles, read_tokenizer

# Classes of `transformers` whose begin and end are set by flags, whatever `tokenizer.json` says.
FLAGGED = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")
# Of the libraries that make the pieces.
VERSIONS = [tokenizers.__version__, sentencepiece.__version__]
# A conversation that shows how a template begins a prompt and ends an answer.
SAMPLE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"})
STAND_INS = range(0xF0000, 0xFFFFE)  # characters for private use


class TokenizerVocabulary:
    """A tokenizer as `transformers` would make it of the same files.

    Args:
      source: the files.
      encodes: whether it is for a T5, whose inputs end with the end id if the tokenizer ends texts.
      rows: of the model's embedding, 0 where that is not known: special tokens past it that nothing writes are left out
        (Gemma 3 has such).
      controls: tokens besides the special ones that only the caller may write.

    Raises:
      UserError: the files name no end-of-sequence token.
    """

    def __init__(self, source: TokenizerFiles, *, encodes: bool, rows: int, controls: Collection[str] = ()) -> None:
        self.name = source.where.rstrip("/").rsplit("/", 1)[-1]
        special = source.special_tokens()
        known = {token.content for token in source.added_tokens().values() if token.special}
        self._secrets = {text: f"<|{secrets.token_hex(16)}|>" for text in {*known, *special.values(), *controls}}
        self._pieces = _pieces(source, self._secrets)
        self._controls = {text: self._pieces.ids[name] for text, name in self._secrets.items()}
        self._special = {name: self._controls[text] for name, text in special.items()}
        self._set_ends(source)
        begin, end = _frame(source, self._special)
        self.bos_id: int | None = begin[0] if begin else None
        self.ends_inputs = encodes and end == [self.eos_id]
        self.size = self._count(rows, {self._controls[text] for text in controls})
        self.fingerprint = files.digest([VERSIONS, source.fingerprint, self.eos_id, self.pad_id, self.ends_inputs])

    def _set_ends(self, source: TokenizerFiles) -> None:
        known, hidden = set(self._pieces.ids.values()), set(self._controls.values())
        ends = [*_named(self._special, "eos_token"), *source.ids_of("eos_token_id")]
        self.stop_ids = tuple(dict.fromkeys(id for id in ends if id in known))
        if not self.stop_ids:
            raise source.error(f"names no end-of-sequence token; add eos_token to {CONFIG}")
        self.eos_id = self.stop_ids[0]
        pads = [*_named(self._special, "pad_token"), *source.ids_of("pad_token_id")]
        pads += _named(self._special, "unk_token")
        self.pad_id = next((id for id in pads if id in hidden), self.eos_id)

    def _count(self, rows: int, used: Collection[int]) -> int:
        size = 1 + max(self._pieces.ids.values())
        if not rows or size <= rows:
            return size
        unused = {*self._controls.values()} - {self.bos_id, self.pad_id, *self.stop_ids, *used}
        return 1 + max(id for id in self._pieces.ids.values() if id not in unused)

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return self._pieces.encode(text)

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """See `Vocabulary.decode`; ids that no token has, as those of an embedding's padding, are left out."""
        kept, hidden = [], set(self._controls.values())
        for token in map(int, ids):
            if token in self.stop_ids:
                break
            if 0 <= token < self.size and token not in hidden:
                kept.append(token)
        return self._pieces.decode(kept)


class ChatVocabulary(TokenizerVocabulary):
    """A tokenizer with its chat template: answers end as the template ends the model's turn.

    Raises:
      UserError: there is no template, or it raises.
    """

    def __init__(self, source: TokenizerFiles, *, rows: int) -> None:
        special, more = source.special_tokens(), source.more_special_tokens()
        variables = special | ({"additional_special_tokens": more} if more else {})
        self._template = ChatTemplate(source.chat_template(), variables, source.where)
        asked = self._template.render(SAMPLE[:1], asks=True)
        ended = self._template.render(SAMPLE, asks=False).rpartition(SAMPLE[1]["content"])[2]
        tokens = _any_of({token.content for token in source.added_tokens().values()})
        end = tokens.findall(ended)[:1]
        super().__init__(source, encodes=False, rows=rows, controls={*tokens.findall(asked), *end})
        begins = "bos_token" in special and asked.startswith(special["bos_token"])
        self.bos_id = self._special["bos_token"] if begins else None
        self.stop_ids = tuple(dict.fromkeys([*(self._controls[text] for text in end), *self.stop_ids]))
        self.eos_id = self.stop_ids[0]
        self.fingerprint = files.digest([self.fingerprint, self.eos_id])
        self._marks = _any_of(self._secrets)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation and of the beginning of the model's answer, without the begin id.

        What looks like a control token in a message is text: its first character has a stand-in while the template
        works, and those that the template writes get their secret names meanwhile.

        Raises:
          UserError: the template raises.
        """
        contents = "".join(message["content"] for message in messages)
        spare = (chr(code) for code in STAND_INS if chr(code) not in contents)
        stand_ins = dict(zip(sorted({text[0] for text in self._secrets}), spare, strict=False))
        hidden = re.compile(f"(?={self._marks.pattern}).", re.DOTALL)
        safe = [
            message | {"content": hidden.sub(lambda found: stand_ins[found[0]], message["content"])}
            for message in messages
        ]
        text = self._marks.sub(lambda found: self._secrets[found[0]], self._template.render(safe, asks=True))
        ids = self.encode(text.translate({ord(there): here for here, there in stand_ins.items()}))
        if self.bos_id is None:
            return ids
        if ids[:1] != [self.bos_id]:
            hint = "begins some conversations with a begin token, but not all; choose another config.data.template"
            raise UserError("chat template", self.name, hint)
        return ids[1:]


def open_tokenizer(path: str, template: str, *, encodes: bool = False, rows: int = 0) -> TokenizerVocabulary:
    """The tokenizer in a folder.

    Args:
      path: the folder, or one file in it.
      template: with "chat" a conversation can be encoded, and answers end as a turn of it does.
      encodes: whether it is for a T5.
      rows: of the model's embedding, 0 where that is not known.

    Raises:
      UserError: there is none, its files are damaged, or its chat template is missing or raises.
    """
    source = read_tokenizer(path)
    try:
        if template == "chat":
            return ChatVocabulary(source, rows=rows)
        return TokenizerVocabulary(source, encodes=encodes, rows=rows)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a file is other than its format says
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise source.error(f"cannot be read ({reason}); copy the folder again") from None


def _pieces(source: TokenizerFiles, names: dict[str, str]) -> Pieces:
    added, settings = source.added_tokens(), source.json(CONFIG)
    if TOKENIZER in source.data:
        return JsonPieces(_with_prefix_of(settings, source.json(TOKENIZER)), [*added.values()], names)
    prefix = "each"
    if settings.get("legacy") is False:
        prefix = "first" if settings.get("add_prefix_space", True) else "none"
    return SentencePieces(source.data[SENTENCEPIECE], added, names, prefix)


def _with_prefix_of(settings: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A `tokenizer.json` in which the settings say whether bytes begin with a space, as `transformers` has it."""
    first = values["pre_tokenizer"]
    if not first or first["type"] != "ByteLevel":
        return values
    return {**values, "pre_tokenizer": {**first, "add_prefix_space": bool(settings.get("add_prefix_space", False))}}


def _frame(source: TokenizerFiles, special: dict[str, int]) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and behind a text."""
    begin, end = _named(special, "bos_token"), _named(special, "eos_token")
    if source.tokenizer_class in FLAGGED or (TOKENIZER not in source.data and not source.is_t5):
        settings = source.json(CONFIG)
        return begin * bool(settings.get("add_bos_token", True)), end * bool(settings.get("add_eos_token", False))
    if TOKENIZER not in source.data:
        return [], end
    # The file's post-processor says, whatever its kind: a text of one known word shows it.
    alone = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "decoder": None,
        "post_processor": source.json(TOKENIZER)["post_processor"],
        "model": {"type": "WordLevel", "vocab": {"word": 0}, "unk_token": "word"},
    }
    encoding = load(alone).encode("word")
    place = encoding.special_tokens_mask.index(0)
    return encoding.ids[:place], encoding.ids[place + 1 :]


def _named(special: dict[str, int], name: str) -> list[int]:
    """The id of a special token, if there is one of that name."""
    return [special[name]] if name in special else []


def _any_of(texts: Collection[str]) -> re.Pattern[str]:
    """Finds any of some texts, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=lambda text: (-len(text), text)))) or "(?!)")
