"""The tokenizer of a published model as a vocabulary, from the files in the model's folder.

Ids are those of `transformers`, with one exception: no text of an example becomes a control token, whatever it looks
like. Control tokens come from where they belong: the begin id from the loader, the end id from the task, those of a
chat from its template.
"""

import functools
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sentencepiece
import tokenizers

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.families.published_folder import TOKENIZER_CONFIG as CONFIG
from coi_jax.tokenizers.chat_template import ChatTemplate, Message
from coi_jax.tokenizers.pieces import JsonPieces, Pieces, SentencePieces, load_tokenizer
from coi_jax.tokenizers.tokenizer_files import SENTENCEPIECE, TOKENIZER, TokenizerFiles, read_tokenizer

# Classes of `transformers` whose begin and end are set by flags, whatever `tokenizer.json` says.
FLAGGED = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")
# Of the libraries that make the pieces.
VERSIONS = [tokenizers.__version__, sentencepiece.__version__]
# A conversation that shows how a template begins a prompt and ends an answer.
SAMPLE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"})
PLACEHOLDERS = range(0xF0000, 0xFFFFE)  # characters for private use
OPENING_TAG = re.compile(r"<[^/<>]+>\Z")  # at the end of a text, as "<think>"


class TokenizerVocabulary:
    """A tokenizer as `transformers` would load it from the same files.

    Args:
      source: the files.
      for_t5: the model is a T5, whose inputs end with the end id if the tokenizer ends texts.
      embedding_rows: rows of the model's embedding, 0 where unknown: special tokens beyond it that nothing writes are
        left out (Gemma 3 has such).
      controls: tokens besides the special ones that only the caller may write.

    Raises:
      UserError: the files name no end-of-sequence token.
    """

    def __init__(
        self, source: TokenizerFiles, *, for_t5: bool, embedding_rows: int, controls: Collection[str] = ()
    ) -> None:
        self.name = source.where.rstrip("/").rsplit("/", 1)[-1]
        special = source.special_tokens()
        known = {token.content for token in source.added_tokens().values() if token.special}
        self._secrets = {text: f"<|{secrets.token_hex(16)}|>" for text in {*known, *special.values(), *controls}}
        self._pieces = _pieces(source, self._secrets)
        self._controls = {text: self._pieces.ids[name] for text, name in self._secrets.items()}
        self._special = {name: self._controls[text] for name, text in special.items()}
        self._set_ends(source)
        begin, end = _surrounding_ids(source, self._special)
        self.bos_id: int | None = begin[0] if begin else None
        self.add_eos_to_inputs = for_t5 and end == [self.eos_id]
        self.size = self._count(embedding_rows, {self._controls[text] for text in controls})
        self.fingerprint = files.digest(
            [VERSIONS, source.fingerprint, self.eos_id, self.pad_id, self.add_eos_to_inputs]
        )

    def _set_ends(self, source: TokenizerFiles) -> None:
        known, hidden = set(self._pieces.ids.values()), set(self._controls.values())
        ends = [*_named(self._special, "eos_token"), *source.token_ids("eos_token_id")]
        self.stop_ids = tuple(dict.fromkeys(id for id in ends if id in known))
        if not self.stop_ids:
            raise source.error(f"names no end-of-sequence token; add eos_token to {CONFIG}")
        self.eos_id = self.stop_ids[0]
        pads = [*_named(self._special, "pad_token"), *source.token_ids("pad_token_id")]
        pads += _named(self._special, "unk_token")
        self.pad_id = next((id for id in pads if id in hidden), self.eos_id)

    def _count(self, embedding_rows: int, used: Collection[int]) -> int:
        size = 1 + max(self._pieces.ids.values())
        if not embedding_rows or size <= embedding_rows:
            return size
        unused = {*self._controls.values()} - {self.bos_id, self.pad_id, *self.stop_ids, *used}
        return 1 + max(id for id in self._pieces.ids.values() if id not in unused)

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return self._pieces.encode(text)

    def control_token(self, id: int) -> str | None:
        """Return the text of a control token; None for an id that is none."""
        return next((text for text, known in self._controls.items() if known == id), None)

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

    Args:
      source: the files.
      embedding_rows: rows of the model's embedding, 0 where unknown.
      variables: of the template, as `{"enable_thinking": False}`.

    Raises:
      UserError: there is no template, it raises, or it opens a thought where the model is to answer.
    """

    def __init__(
        self, source: TokenizerFiles, *, embedding_rows: int, variables: Mapping[str, Any] | None = None
    ) -> None:
        special, more = source.special_tokens(), source.additional_special_tokens()
        given = special | ({"additional_special_tokens": more} if more else {}) | dict(variables or {})
        self._template = ChatTemplate(source.chat_template(), given, source.where)
        asked = self._template.render(SAMPLE[:1], add_generation_prompt=True)
        before, shown, ended = self._template.render(SAMPLE, add_generation_prompt=False).rpartition(
            SAMPLE[1]["content"]
        )
        if shown:
            _check_nothing_opened(source, asked.rstrip(), before)
        tokens = _any_of({token.content for token in source.added_tokens().values()})
        end = tokens.findall(ended)[:1]
        super().__init__(source, for_t5=False, embedding_rows=embedding_rows, controls={*tokens.findall(asked), *end})
        begins = "bos_token" in special and asked.startswith(special["bos_token"])
        self.bos_id = self._special["bos_token"] if begins else None
        self.stop_ids = tuple(dict.fromkeys([*(self._controls[text] for text in end), *self.stop_ids]))
        self.eos_id = self.stop_ids[0]
        self.fingerprint = files.digest([self.fingerprint, self.eos_id, *([dict(variables)] if variables else [])])
        self._marks = _any_of(self._secrets)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a conversation and of the beginning of the model's answer, without the begin id.

        What looks like a control token in a message is text: its first character is replaced by a placeholder while the
        template is rendered, and the control tokens that the template writes get their secret names meanwhile.

        Raises:
          UserError: the template raises.
        """
        contents = "".join(message["content"] for message in messages)
        spare = (chr(code) for code in PLACEHOLDERS if chr(code) not in contents)
        placeholders = dict(zip(sorted({text[0] for text in self._secrets}), spare, strict=False))
        hidden = re.compile(f"(?={self._marks.pattern}).", re.DOTALL)
        safe = [
            message | {"content": hidden.sub(lambda found: placeholders[found[0]], message["content"])}
            for message in messages
        ]
        text = self._marks.sub(
            lambda found: self._secrets[found[0]], self._template.render(safe, add_generation_prompt=True)
        )
        ids = self.encode(text.translate({ord(there): here for here, there in placeholders.items()}))
        if self.bos_id is None:
            return ids
        if ids[:1] != [self.bos_id]:
            hint = "begins some conversations with a begin token, but not all; choose another config.data.template"
            raise UserError("chat template", self.name, hint)
        return ids[1:]


def _check_nothing_opened(source: TokenizerFiles, asked: str, before: str) -> None:
    """Raise UserError where a template opens a thought for the model that it closes or leaves out before an answer.

    A model would be taught to answer inside of the thought.

    Args:
      source: the files, for the error.
      asked: a conversation up to where the model is to answer.
      before: the same conversation with its answer, up to that answer.
    """
    is_same = before.startswith(asked)
    is_closed = is_same and before[len(asked) :].lstrip().startswith("</")
    opened = OPENING_TAG.search(asked)
    if not opened or (is_same and not is_closed):
        return
    hint = (
        f"opens {opened[0]} where the model is to answer, and answers would be taught inside of it; set the variable "
        "that turns it off (often --config.data.chat.variables.enable_thinking=False), or choose another template"
    )
    raise UserError("chat template", source.where, hint)


def open_tokenizer(
    path: str,
    template: str,
    *,
    for_t5: bool = False,
    embedding_rows: int = 0,
    variables: Mapping[str, Any] | None = None,
) -> TokenizerVocabulary:
    """Load the tokenizer in a folder.

    Args:
      path: the folder, or one file in it.
      template: with "chat" a conversation can be encoded, and answers end as a turn of it does.
      for_t5: the model is a T5.
      embedding_rows: rows of the model's embedding, 0 where unknown.
      variables: of the chat template.

    Raises:
      UserError: there is none, its files are damaged, or its chat template is missing or raises.
    """
    given = tuple(sorted((variables or {}).items()))
    return _build(read_tokenizer(path), template, for_t5, embedding_rows, given)


@functools.lru_cache(maxsize=2)
def _build(
    source: TokenizerFiles, template: str, for_t5: bool, embedding_rows: int, variables: tuple[tuple[str, Any], ...]
) -> TokenizerVocabulary:
    """Return the vocabulary of some files, the same for the same files: a command asks for it several times.

    A large one takes seconds to build. Args and errors are those of `open_tokenizer`.
    """
    try:
        if template == "chat":
            return ChatVocabulary(source, embedding_rows=embedding_rows, variables=dict(variables))
        return TokenizerVocabulary(source, for_t5=for_t5, embedding_rows=embedding_rows)
    except UserError:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
    ) as error:  # a file is other than its format says
        raise _unreadable(source, error) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the tokenizers library, which is no Exception
            raise
        raise _unreadable(source, error) from None


def _unreadable(source: TokenizerFiles, error: BaseException) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return source.error(f"cannot be read ({reason}); copy the folder again")


def _pieces(source: TokenizerFiles, names: dict[str, str]) -> Pieces:
    added, settings = source.added_tokens(), source.json(CONFIG)
    if TOKENIZER in source.data:
        return JsonPieces(_with_prefix_space(settings, source.json(TOKENIZER)), [*added.values()], names)
    prefix = "each"
    if settings.get("legacy") is False:
        prefix = "first" if settings.get("add_prefix_space", True) else "none"
    return SentencePieces(source.data[SENTENCEPIECE], added, names, prefix)


def _with_prefix_space(settings: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return a `tokenizer.json` with `add_prefix_space` as the settings have it, like `transformers`."""
    first = values["pre_tokenizer"]
    if not first or first["type"] != "ByteLevel":
        return values
    return {**values, "pre_tokenizer": {**first, "add_prefix_space": bool(settings.get("add_prefix_space", False))}}


def _surrounding_ids(source: TokenizerFiles, special: dict[str, int]) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds before and after a text."""
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
    encoding = load_tokenizer(alone).encode("word")
    place = encoding.special_tokens_mask.index(0)
    return encoding.ids[:place], encoding.ids[place + 1 :]


def _named(special: dict[str, int], name: str) -> list[int]:
    """Return the id of a special token as a list, empty where there is none of that name."""
    return [special[name]] if name in special else []


def _any_of(texts: Collection[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of some texts, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=lambda text: (-len(text), text)))) or "(?!)")
