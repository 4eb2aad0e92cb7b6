"""The tokenizer files in a published model's folder, and the special tokens that they define.

Which file defines what, and which takes precedence, is as in `transformers` (`tokenization_utils_base.py`).
"""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import sentencepiece
from tokenizers import AddedToken

from coi_jax.common import files, hub
from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import JsonError, json_kind, parse_json
from coi_jax.common.storage import Folder, PathLike, atomic_folder
from coi_jax.families.config_values import token_ids
from coi_jax.families.published_folder import CONFIG as MODEL_CONFIG
from coi_jax.families.published_folder import (
    DEFAULT,
    GENERATION,
    TEMPLATE,
    TEMPLATE_JSON,
    named_templates,
)
from coi_jax.families.published_folder import TOKENIZER_CONFIG as CONFIG

FIELD = "config.vocabulary.folder"
TOKENIZER, SENTENCEPIECE = "tokenizer.json", "tokenizer.model"
MODELS = {"tokenizer.json": TOKENIZER, "tokenizer.model": SENTENCEPIECE, "spiece.model": SENTENCEPIECE}
SPECIAL_MAP, ADDED = "special_tokens_map.json", "added_tokens.json"
SETTINGS = (CONFIG, SPECIAL_MAP, ADDED, GENERATION, MODEL_CONFIG, TEMPLATE, TEMPLATE_JSON)
EXTRA_IDS = 100  # T5's sentinels, where its files do not count them
MOST_EXTRA_IDS = 10_000
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TokenizerFiles:
    """The bytes of a tokenizer's files, by name: `tokenizer.json` or `tokenizer.model`, and those in `SETTINGS`.

    Args:
      where: the folder, for errors.
      data: the files.
    """

    def __init__(self, where: str, data: Mapping[str, bytes]) -> None:
        self.where, self.data = where, data
        self._objects: dict[str, dict[str, Any]] = {}

    @functools.cached_property
    def _identity(self) -> tuple[str, str]:
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in self.data.items()}
        return self.where, files.digest(sorted(hashes.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenizerFiles) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def fingerprint(self) -> str:
        """Return a SHA-256 over all files that change tokens."""
        names = sorted(set(self.data) - {GENERATION, MODEL_CONFIG})
        return files.digest([[name, hashlib.sha256(self.data[name]).hexdigest()] for name in names])

    def json(self, name: str) -> dict[str, Any]:
        """Return the object in a file, empty where there is no such file. It is parsed once: the files are large.

        Raises:
          UserError: it is not a JSON object.
        """
        if name not in self._objects:
            self._objects[name] = self._parse(name) if name in self.data else {}
        return self._objects[name]

    def write(self, folder: PathLike) -> None:
        """Write the files into a new folder, which appears when it is complete."""
        marker = TOKENIZER if TOKENIZER in self.data else SENTENCEPIECE
        with atomic_folder(folder, marker=marker, field="tokenizer") as partial:
            for name, data in self.data.items():
                (partial / name).write_bytes(data)

    def _parse(self, name: str) -> dict[str, Any]:
        try:
            value = parse_json(self.data[name])
        except JsonError as error:
            reason = str(error)
            raise self.error(f"is {reason}" if reason.startswith("not") else reason, name) from None
        if not isinstance(value, dict):
            raise self.error(f"{name} holds {json_kind(value)} where a JSON object is expected; copy it again", name)
        return value

    def error(self, hint: str, name: str = "") -> UserError:
        """Return an error about these files."""
        return UserError("tokenizer", f"{self.where}/{name}" if name else self.where, hint)

    @property
    def tokenizer_class(self) -> str:
        """Return the name of the class in `transformers`, without "Fast"; "" where none is named."""
        return str(self.json(CONFIG).get("tokenizer_class") or "").removesuffix("Fast")

    @property
    def is_t5(self) -> bool:
        """Return whether it is a T5's tokenizer, which ends every text and has sentinels."""
        if self.tokenizer_class:
            return self.tokenizer_class in ("T5Tokenizer", "MT5Tokenizer")
        return self.json(MODEL_CONFIG).get("model_type") in ("t5", "mt5")

    @functools.cached_property
    def pieces(self) -> dict[str, int]:
        """Return the ids of the model's own pieces."""
        if SENTENCEPIECE in self.data:
            return {self._processor.id_to_piece(id): id for id in range(self._processor.vocab_size())}
        vocabulary = self.json(TOKENIZER)["model"]["vocab"]
        return {entry[0]: id for id, entry in enumerate(vocabulary)} if isinstance(vocabulary, list) else vocabulary

    @functools.cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self.data[SENTENCEPIECE] or b"none")
        except (RuntimeError, UnicodeDecodeError):  # the library quotes bytes of the file in its errors
            raise self.error("is not a SentencePiece model; copy it again", SENTENCEPIECE) from None

    def special_tokens(self) -> dict[str, str]:
        """Return the text of each named special token, by name, as `eos_token`."""
        named = self.json(SPECIAL_MAP) | self.json(CONFIG)
        return self._own_special_tokens() | {name: _content(named[name]) for name in SPECIAL_NAMES if named.get(name)}

    def _own_special_tokens(self) -> dict[str, str]:
        """Return the special tokens that a SentencePiece model defines itself."""
        if SENTENCEPIECE not in self.data:
            return {}
        model = self._processor
        ids = {
            "bos_token": model.bos_id(),
            "eos_token": model.eos_id(),
            "unk_token": model.unk_id(),
            "pad_token": model.pad_id(),
        }
        return {name: model.id_to_piece(id) for name, id in ids.items() if id >= 0}

    def additional_special_tokens(self) -> list[str]:
        """Return the special tokens without a name."""
        named = self.json(SPECIAL_MAP) | self.json(CONFIG)
        return [_content(token) for token in named.get("additional_special_tokens") or []]

    def added_tokens(self) -> dict[int, AddedToken]:
        """Return the tokens that are matched in a text before the model's own pieces, by id."""
        listed = self.json(TOKENIZER).get("added_tokens", [])
        known = self._sentinels() | {entry["id"]: _added(entry) for entry in listed}
        special = {*self.special_tokens().values(), *self.additional_special_tokens()}
        decoder = self.json(CONFIG).get("added_tokens_decoder")
        if decoder is not None:
            known |= {int(id): _added(entry) for id, entry in decoder.items()}
        else:
            for content, id in self.json(ADDED).items():
                known.setdefault(id, AddedToken(content, special=content in special, normalized=content not in special))
        for content in sorted(special - {token.content for token in known.values()}):
            id = self.pieces[content] if content in self.pieces else 1 + max([*known, *self.pieces.values()])
            known[id] = AddedToken(content, special=True, normalized=False)
        return dict(sorted(known.items()))

    def _sentinels(self) -> dict[int, AddedToken]:
        """Return T5's `<extra_id_0>` and so on, which follow its pieces in reverse (`tokenization_t5.py`)."""
        if not self.is_t5 or SENTENCEPIECE not in self.data:
            return {}
        count = self.json(CONFIG).get("extra_ids", EXTRA_IDS)
        if type(count) is not int or not 0 <= count <= MOST_EXTRA_IDS:
            raise self.error(f"extra_ids is {count}, not from 0 to {MOST_EXTRA_IDS}; correct it", CONFIG)
        return {
            len(self.pieces) - 1 + count - number: AddedToken(f"<extra_id_{number}>", special=True)
            for number in range(count)
        }

    def token_ids(self, field: str) -> list[int]:
        """Return the ids that `generation_config.json`, or else `config.json`, gives a field such as `eos_token_id`.

        Raises:
          UserError: something in it is no id.
        """
        for name in (GENERATION, MODEL_CONFIG):
            if self.json(name).get(field) is not None:
                return token_ids(self.json(name), field, f"{self.where}/{name}")
        return []

    def chat_template(self) -> str:
        """Return the Jinja text of the chat template.

        Raises:
          UserError: there is none.
        """
        if TEMPLATE in self.data:
            return self.data[TEMPLATE].decode("utf-8")
        for name in (CONFIG, TEMPLATE_JSON):
            templates = named_templates(self.json(name).get("chat_template"))
            if DEFAULT in templates:
                return templates[DEFAULT]
            if templates:
                hint = (
                    f'has no chat template named "{DEFAULT}", only {", ".join(templates)}; copy the one that is meant'
                )
                raise self.error(f"{hint} into {TEMPLATE}", name)
        raise self.error('has no chat template; choose config.data.template = "plain" or "alpaca"')


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _added(entry: Mapping[str, Any]) -> AddedToken:
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(entry["content"], **{flag: entry[flag] for flag in flags if flag in entry})


def read_tokenizer(path: str) -> TokenizerFiles:
    """Read the tokenizer files of a folder, local or in a bucket, or those beside a `tokenizer.json` or `.model` file.

    Raises:
      UserError: there is no tokenizer.
    """
    folder = Folder(path, FIELD, hub.SMALL_FILES)
    if folder.exists() and not folder.path.is_dir():
        parent, _, name = folder.url.rpartition("/")
        folder, found = Folder(parent or ".", FIELD), {name: TOKENIZER if name.endswith(".json") else SENTENCEPIECE}
    else:
        present = set(folder.names())
        found = {name: MODELS[name] for name in MODELS if name in present}
    if not found:
        raise UserError(FIELD, path, f"has no {', '.join(MODELS)}; name a folder with one of them")
    [(name, kind), *_] = found.items()
    data = {kind: folder.read(name)}
    return TokenizerFiles(path, data | {name: folder.read(name) for name in SETTINGS if folder.exists(name)})
