"""Complete a config from the folder of its weights: the network, the tokenizer and the layout of prompts.

`config.weights.folder` names a published model or another run. What its files say is written into the config. Fields of
the network that are set besides (by overrides, or by a config file that names the folder itself) must agree with it.
The network and the vocabulary of a config file that names no weights are meant for random ones, and give way.
"""

import functools
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from coi_jax.common import hub
from coi_jax.common.errors import LONGEST_HINT, UserError, one_line
from coi_jax.common.schema import flatten
from coi_jax.common.storage import Folder, PathLike, as_path
from coi_jax.families import published_folder
from coi_jax.families.config_values import token_ids
from coi_jax.families.published_config import from_hf_config, network_fields, unread_fields
from coi_jax.families.published_folder import CONFIG, GENERATION, TOKENIZER_CONFIG, TOKENIZER_MODELS

FIELD = "config.weights.folder"
LEAVE_OUT = "leave it out, and a preset too: the folder says the network"
VOCABULARY = "vocabulary.model"  # of a run whose vocabulary has a file
TOLERANCE = 1e-6  # relative; a folder converted from another format may hold numbers that were rounded to 32 bits


@dataclass(frozen=True)
class Pretrained:
    """What a folder of weights says of a config.

    Attributes:
      where: the folder, as the config names it.
      network: the fields of the model section that say what the network is.
      vocabulary: the section of its tokenizer; None where it has none of its own.
      template: the layout of its prompts; None where any will do.
      is_run: whether it is a run of this project, which may have been trained with any vocabulary.
    """

    where: str
    network: dict[str, Any]
    vocabulary: dict[str, Any] | None
    template: str | None
    is_run: bool

    def prepare(self, values: dict[str, Any], overrides: Mapping[str, Any], *, replaces: bool) -> None:
        """Take out of a file's values what gives way to the folder; must come before overrides are set.

        Args:
          values: the values of the config file, changed in place.
          overrides: the dotted fields that will be set.
          replaces: whether the file's network, vocabulary and template are meant for other weights and give way.
        """
        if not isinstance(values.get("model"), dict):
            return
        model = dict(values["model"])
        if replaces:
            fields = {*network_fields("decoder"), *network_fields("t5"), "preset"}
            model = {name: value for name, value in model.items() if name not in fields}
            if self.vocabulary:
                values.pop("vocabulary", None)
        if "preset" not in model and "model.preset" not in overrides:  # which has both
            model.setdefault("kind", self.network["kind"])
            model |= {"rope": {}} if "rope" in self.network and "rope" not in model else {}  # so that it has fields
        values["model"] = model
        values.setdefault("vocabulary", dict(self.vocabulary or {}))

    def complete(self, values: dict[str, Any], overrides: Mapping[str, Any], *, replaces: bool) -> None:
        """Write what the folder says into a config's values; must come after overrides are set.

        Args:
          values: of the config, changed in place.
          overrides: the dotted fields that were set.
          replaces: as in `prepare`.

        Raises:
          UserError: fields that are set contradict the folder; it names all of them.
        """
        model, data = values.get("model"), values.get("data")
        if not isinstance(model, dict) or not isinstance(data, dict):
            return  # which is told when the values are validated
        known = {name: value for name, value in self.network.items() if (name, value) != ("vocabulary_size", None)}
        check_same_network(model, known, self.where)
        values["model"] = model | self.network
        if isinstance(model.get("scan_unroll"), int):
            values["model"]["scan_unroll"] = min(model["scan_unroll"], self.network["layers"])
        self._check_vocabulary(values.get("vocabulary"))
        if not {"data", "data.template"} & overrides.keys() and (replaces or "template" not in data):
            has_own = self.is_run or values["vocabulary"].get("kind") == "tokenizer"
            data["template"] = (self.template if has_own else None) or data.get("template", "alpaca")
        if "data.targets_length" not in overrides:
            is_t5 = self.network["kind"] == "t5"
            data["targets_length"] = (data.get("targets_length") or data.get("length")) if is_t5 else None

    def _check_vocabulary(self, vocabulary: Any) -> None:
        kind = vocabulary.get("kind") if isinstance(vocabulary, dict) else None
        if kind not in (None, "trained") or (self.is_run and kind == "trained"):
            return
        if not self.vocabulary:
            hint = (
                f"has no tokenizer ({', '.join(TOKENIZER_MODELS)}), and its weights know no ids but those of their "
                "own: put its files there, or name a folder that has them, by "
                "--config.vocabulary=tokenizer --config.vocabulary.folder=FOLDER"
            )
            raise UserError("config.weights.folder", self.where, hint)
        hint = f"the weights in {self.where} know no ids but those of their own tokenizer; "
        raise UserError("config.vocabulary.kind", kind, f"{hint}leave vocabulary out, and it is taken from there")


def find(values: Mapping[str, Any], overrides: Mapping[str, Any], kept: PathLike | None) -> Pretrained | None:
    """Return what the folder of a config's weights says; None where it names none, or cannot be read from here.

    Args:
      values: of the config file.
      overrides: dotted fields to change.
      kept: a run's own copy of the folder's small files, which is read instead where it is there.

    Raises:
      UserError: there is no such folder though the config needs one, or no network here computes what it holds.
    """
    named = _named(values)
    where = overrides.get("weights.folder", named)
    where = None if where == "None" else where
    model = values.get("model")
    if not isinstance(where, str) or not where:
        if isinstance(model, dict) and not {"preset", "kind"} & model.keys() and "model.preset" not in overrides:
            hint = "name a published folder, which says the network, or config.model.preset for random weights"
            raise UserError(FIELD, where, hint)
        return None
    copy = Folder(kept, FIELD) if kept is not None and Folder(kept, FIELD).exists(CONFIG) else None
    if copy is not None and hub.is_hub(where):
        return _of_published(copy, where)  # nothing is asked of the Hub
    says_all = named and isinstance(model, dict) and ("preset" in model or "layers" in model)
    try:
        folder = Folder(where, FIELD, hub.SMALL_FILES)
        is_there = folder.exists()
    except (UserError, OSError):  # a bucket, or the Hub, that is out of reach from here
        if says_all:
            return None
        raise
    if (folder.path / "checkpoints").is_dir() and folder.exists(CONFIG):
        return _of_run(folder)
    if copy is not None:
        return _of_published(copy, where)
    if folder.exists(CONFIG):
        return _of_published(folder, where)
    if says_all and not is_there:
        return None  # as for a pod that has the folder; it is checked when it is opened
    hint = f"has no {CONFIG}; name a folder as it was published" if is_there else "no such folder; check the path"
    if folder.exists("adapter_config.json"):
        hint = "holds adapters of peft alone; merge them into their model there (merge_and_unload), and save that"
    if where.lower().endswith(".gguf"):
        hint = "is a GGUF file; make a folder of it: python -m coi_jax.convert --src FILE --out FOLDER"
    raise UserError(FIELD, where, hint)


def kept_files(workdir: PathLike) -> epath.Path | None:
    """Return the copy of the published folder's small files in a run that has begun; None where there is none."""
    run = as_path(workdir, "workdir")
    checkpoints = run / "checkpoints"
    is_trained = checkpoints.is_dir() and any(entry.name.isdecimal() for entry in checkpoints.iterdir())
    return run / "published" if is_trained or (run / "eval").exists() else None


def _named(values: Mapping[str, Any]) -> Any:
    """Return the folder of weights that a config file itself names."""
    weights = values.get("weights")
    return weights.get("folder") if isinstance(weights, dict) else None


def is_named_by_file(values: Mapping[str, Any]) -> bool:
    """Return whether a config file itself names a folder of weights."""
    return bool(_named(values))


def _of_published(folder: Folder, where: str) -> Pretrained:
    config = folder.read_json(CONFIG)
    if {"arm", "optimizer"} <= config.keys():
        raise UserError(FIELD, where, "is a run without a checkpoint; train it first (python -m coi_jax.train)")
    network = from_hf_config(config)
    _check_token_ids(folder, config, network["vocabulary_size"])
    if unread := unread_fields(config):
        _note(f"{where}/{CONFIG} has fields that change nothing here: {', '.join(unread)}")
    vocabulary = _vocabulary(folder, where)
    has_tokenizer = vocabulary is not None and vocabulary["kind"] == "tokenizer"
    lays_out_chats = has_tokenizer and network["kind"] == "decoder" and _has_chat_template(folder)
    return Pretrained(where, network, vocabulary, "chat" if lays_out_chats else None, is_run=False)


def _check_token_ids(folder: Folder, config: Mapping[str, Any], rows: int) -> None:
    """Raise UserError where a published folder names a special token by something that is no id.

    An end must be one of the model; a padding token of tokenizers may have no row in it.

    Args:
      folder: the folder.
      config: its config.json.
      rows: of the model's embedding.
    """
    generation = folder.read_json(GENERATION) if folder.exists(GENERATION) else {}
    for name, values in ((CONFIG, config), (GENERATION, generation)):
        token_ids(values, "eos_token_id", name, rows)
        for field in ("bos_token_id", "pad_token_id"):
            token_ids(values, field, name)


def _vocabulary(folder: Folder, where: str) -> dict[str, str] | None:
    """Return the vocabulary of a published folder: its tokenizer's, or bytes, which need no file but are named."""
    if not set(TOKENIZER_MODELS).isdisjoint(folder.names()):
        return {"kind": "tokenizer", "folder": where}
    tokenizer = folder.read_json(TOKENIZER_CONFIG) if folder.exists(TOKENIZER_CONFIG) else {}
    is_bytes = tokenizer.get("tokenizer_class") == "ByT5Tokenizer" and tokenizer.get("extra_ids") == 0
    return {"kind": "bytes"} if is_bytes else None


@functools.cache
def _note(text: str) -> None:
    """Print a note, once: a sweep loads the config of every point."""
    print(f"note: {one_line(text, LONGEST_HINT)}", file=sys.stderr)


def _has_chat_template(folder: Folder) -> bool:
    if folder.exists(published_folder.TEMPLATE):
        return True
    files = [name for name in (TOKENIZER_CONFIG, published_folder.TEMPLATE_JSON) if folder.exists(name)]
    found = [published_folder.named_templates(folder.read_json(name).get("chat_template")) for name in files]
    return any(published_folder.DEFAULT in templates for templates in found)


def _of_run(folder: Folder) -> Pretrained:
    """Return what the config of another run says; its vocabulary stays, whatever its weights are tuned on now."""
    config = folder.read_json(CONFIG)
    try:
        network = {name: config["model"][name] for name in network_fields(config["model"]["kind"])}
        vocabulary, template = dict(config["vocabulary"]), config["data"]["template"]
    except (KeyError, TypeError, ValueError, StopIteration):
        hint = "is not the config of a run of this version; convert or train it again"
        raise UserError(FIELD, f"{folder}/{CONFIG}", hint) from None
    if vocabulary.get("kind") == "tokenizer" and (folder.path / "tokenizer").is_dir():
        vocabulary["folder"] = f"{folder}/tokenizer"
    if vocabulary.get("kind") == "trained":
        if not folder.exists(VOCABULARY):  # an older run: trained again, which gives the same on the same data
            return Pretrained(folder.url, network, None, None, is_run=True)
        vocabulary = {"kind": "sentencepiece", "file": f"{folder}/{VOCABULARY}"}
    return Pretrained(folder.url, network, vocabulary, template, is_run=True)


def check_same_network(section: Mapping[str, Any], expected: Mapping[str, Any], source: object) -> None:
    """Raise UserError where a checkpoint contradicts fields of a model section; it names all of them.

    Args:
      section: the model section of the run.
      expected: the same fields, as the checkpoint has them.
      source: the checkpoint, for the error.
    """
    if section.get("kind", expected.get("kind")) != expected.get("kind"):
        expected = {"kind": expected["kind"]}  # all the others differ then
    due = flatten(expected)
    given = flatten(section)
    differing = {name: given[name] for name in sorted(given.keys() & due) if not is_same(given[name], due[name])}
    if len(differing) == 1:
        [(name, value)] = differing.items()
        raise UserError(f"config.model.{name}", value, f"the checkpoint {source} has {due[name]!r}; {LEAVE_OUT}")
    if differing:
        ours, theirs = (", ".join(f"{name} = {values[name]!r}" for name in differing) for values in (differing, due))
        raise UserError("config.model", ours, f"the checkpoint {source} has {theirs}; {LEAVE_OUT}")


def is_same(one: Any, other: Any) -> bool:
    """Return whether two fields say the same: numbers but for rounding to 32 bits; 0 is an older spelling of None."""
    if one is None or other is None:
        return (one or None) == (other or None)
    if isinstance(one, int | float) and isinstance(other, int | float) and bool not in (type(one), type(other)):
        return math.isclose(one, other, rel_tol=TOLERANCE)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):  # JSON has lists, validated configs tuples
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)
