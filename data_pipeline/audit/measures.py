"""Measures a dataset folder in one pass: leaks, duplicates, ids, degenerate outputs, lengths, categories and verbs.

Every class takes in chains with `add` and gives its findings as JSON values with `report`.
"""

import array
import collections
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import read_chains, read_manifest
from coi_jax.common import files
from coi_jax.common.arguments import Count, checked
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.progress import track
from coi_jax.common.storage import PathLike, as_path
from coi_jax.data.prompts import CHATS, TEMPLATES, encode_prompt, prompt
from coi_jax.tokenizers.protocol import Vocabulary
from data_pipeline.percentiles import percentiles

PERCENTILES = (50, 90, 95, 99, 100)
ANY_LENGTH = "any"
REPETITION_WORDS = 30  # shorter outputs repeat themselves for good reasons (labels, lists of tags)
REPETITION_SHARE = 0.5  # of three-word runs that have stood before; a story has 0.0 to 0.1
LONG_WORDS = 1000  # the longest sound output of the release has 471


def _key(*texts: str) -> bytes:
    return hashlib.blake2b("\0".join(texts).encode("utf-8"), digest_size=12).digest()


class Leaks:
    """Finds chains that share a row, an instruction, an input, or a first step with another split.

    A row is an instruction and an input; a first step is the instruction of the first step and the input, and is
    looked for in the other split's chains of all lengths.
    """

    KINDS = ("row", "instruction", "input", "first_step")

    def __init__(self) -> None:
        self._keys: dict[str, dict[int, tuple[list[bytes], ...]]] = collections.defaultdict(dict)

    def add(self, split: str, chain: Chain) -> None:
        """Add a chain."""
        keys = self._keys[split].setdefault(chain.length, ([], [], [], []))
        first_step = (chain.steps[0].instruction, chain.input)
        texts = ((chain.instruction, chain.input), (chain.instruction,), (chain.input,), first_step)
        for known, text in zip(keys, texts, strict=True):
            known.append(_key(*text))

    def report(self) -> list[dict[str, Any]]:
        """Return, for each pair of splits and each length, how many chains of the smaller split are in the larger."""
        by_size = sorted(self._keys, key=lambda split: (self._size(split), split))
        return [line for small, large in itertools.combinations(by_size, 2) for line in self._pair(small, large)]

    def _size(self, split: str) -> int:
        return sum(len(keys[0]) for keys in self._keys[split].values())

    def _pair(self, small: str, large: str) -> Iterator[dict[str, Any]]:
        all_lengths = self._together(large)
        for length in sorted(self._keys[small].keys() & self._keys[large].keys()):
            *same_length, _ = self._keys[large][length]
            found = self._common(self._keys[small][length], (*same_length, all_lengths[-1]))
            yield {"split": small, "within": large, "length": length} | found
        found = self._common(self._together(small), all_lengths)
        yield {"split": small, "within": large, "length": ANY_LENGTH} | found

    def _together(self, split: str) -> tuple[list[bytes], ...]:
        return tuple(list(itertools.chain(*lists)) for lists in zip(*self._keys[split].values(), strict=True))

    def _common(self, small: tuple[list[bytes], ...], large: tuple[list[bytes], ...]) -> dict[str, Any]:
        shared = {}
        for kind, left, right in zip(self.KINDS, small, large, strict=True):
            known = set(right)
            shared[kind] = sum(key in known for key in left)
        return {"chains": len(small[0]), **shared}


class Duplicates:
    """Finds chains that a split has more than once."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[bytes, str]] = collections.defaultdict(dict)
        self._whole: dict[str, set[bytes]] = collections.defaultdict(set)
        self._lines: dict[str, dict[str, Any]] = {}

    def add(self, split: str, chain: Chain) -> None:
        """Add a chain."""
        line = self._lines.setdefault(split, {"rows": 0, "chains": 0, "pairs": []})
        row = _key(chain.instruction, chain.input)
        whole = _key(chain.instruction, chain.input, *(output or "" for output in chain.outputs))
        first = self._rows[split].setdefault(row, chain.id)
        if first != chain.id:
            line["rows"] += 1
            line["pairs"].append([first, chain.id])
        line["chains"] += whole in self._whole[split]
        self._whole[split].add(whole)

    def report(self) -> dict[str, dict[str, Any]]:
        """Return by split the repeats: `rows` of instruction and input, `chains` of outputs too, `pairs` of ids."""
        return self._lines


def repeated_share(output: str) -> float:
    """Return the share of an output's three-word runs that have stood before, 0 to 1.

    Example: `"a b c a b c"` has the runs abc, bca, cab, abc, so 0.25.
    """
    words = output.split()
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def degeneracy(output: str) -> str | None:
    """Return the fault of an output: "empty", "repetitive" or "long"; None for a sound one."""
    words = len(output.split())
    if not words:
        return "empty"
    if words >= REPETITION_WORDS and repeated_share(output) >= REPETITION_SHARE:
        return "repetitive"
    return "long" if words > LONG_WORDS else None


class RepeatedIds:
    """Finds ids that more than one row of a split has: predictions are kept by id."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = collections.defaultdict(set)
        self._times: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def add(self, split: str, chain: Chain) -> None:
        """Add a chain."""
        if chain.id in self._seen[split]:
            self._times[split][chain.id] += 1
        self._seen[split].add(chain.id)

    def report(self) -> dict[str, dict[str, int]]:
        """Return by split the ids that occur more than once, with how often, the most frequent first."""
        return {split: {name: 1 + n for name, n in times.most_common()} for split, times in self._times.items()}


def uncounted_splits(folder: PathLike, manifest: dict[str, Any]) -> list[str]:
    """Return the files of chains that a manifest counts nothing of: no command reads them.

    Args:
      folder: of the dataset.
      manifest: of the dataset.
    """
    names = [path.name.removesuffix(".jsonl") for path in as_path(folder).iterdir() if path.name.endswith(".jsonl")]
    return sorted(name for name in names if name not in manifest["counts"] and _begins_with_chain(folder, name))


def _begins_with_chain(folder: PathLike, name: str) -> bool:
    try:
        row = next(files.read_jsonl(as_path(folder) / f"{name}.jsonl", "dataset"), None)
        return row is not None and bool(Chain.from_row(row).id)
    except UserError:
        return False


class Degenerate:
    """Finds outputs that are empty, repetitive or far too long."""

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] = []

    def add(self, split: str, chain: Chain) -> None:
        """Add a chain; a step without a reference is no fault."""
        for number, output in enumerate(chain.outputs, 1):
            if output is None or (fault := degeneracy(output)) is None:
                continue
            self._found.append(
                {
                    "split": split,
                    "id": chain.id,
                    "step": number,
                    "fault": fault,
                    "words": len(output.split()),
                    "repeated": round(repeated_share(output), 3),
                    "begins": output[:80],
                }
            )

    def report(self) -> list[dict[str, Any]]:
        """Return the faulty outputs, the longest first."""
        return sorted(self._found, key=lambda found: -found["words"])


class Lengths:
    """Measures the lengths of prompts and targets, in words and in tokens."""

    MEASURES = ("instruction_words", "input_words", "target_words", "prompt_tokens", "target_tokens", "tokens")

    def __init__(self, vocabulary: Vocabulary, template: str, limits: Sequence[int]) -> None:
        self._vocabulary, self._template, self._limits = vocabulary, template, limits
        self._values: dict[tuple[str, int], tuple[array.array[int], ...]] = {}

    def add(self, split: str, chain: Chain) -> None:
        """Add a chain. Tokens are those of the prompt and of the targets with their end mark."""
        words = [len(text.split()) for text in (chain.instruction, chain.input, chain.targets)]
        text = prompt(chain.instruction, chain.input, self._template)
        prompt_tokens = len(encode_prompt(text, self._template, self._vocabulary))
        target_tokens = self._count(chain.targets) + 1
        values = self._values.setdefault((split, chain.length), tuple(array.array("l") for _ in self.MEASURES))
        for known, value in zip(
            values, (*words, prompt_tokens, target_tokens, prompt_tokens + target_tokens), strict=True
        ):
            known.append(value)

    def _count(self, text: str) -> int:
        return len(self._vocabulary.encode(text))

    def report(self) -> list[dict[str, Any]]:
        """Return, by split and length, percentiles of each measure, and how many chains each limit would cut."""
        return [self._line(split, length, values) for (split, length), values in sorted(self._values.items())]

    def _line(self, split: str, length: int, values: tuple["array.array[int]", ...]) -> dict[str, Any]:
        measures = dict(zip(self.MEASURES, values, strict=True))
        cut = {str(limit): sum(value > limit for value in measures["tokens"]) for limit in self._limits}
        measured = {name: percentiles_of(value) for name, value in measures.items()}
        return {"split": split, "length": length, "chains": len(values[0]), "cut": cut} | measured


def percentiles_of(values: Sequence[int]) -> dict[str, int]:
    """Return the percentiles of an audit, by their names in JSON."""
    return dict(zip(map(str, PERCENTILES), percentiles(values, PERCENTILES), strict=True))


class Places:
    """Counts the places of categories, and of the verbs that instructions begin with, in chains."""

    def __init__(self) -> None:
        self._categories: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self._verbs: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def add(self, split: str, chain: Chain) -> None:
        """Add a chain; a step whose instruction is not given has no verb."""
        for number, step in enumerate(chain.steps, 1):
            place = _place(number, chain.length)
            if step.category is not None:
                self._categories[step.category][place] += 1
            words = step.instruction.split()
            if words:
                self._verbs[words[0].strip(".,:;!?\"'").lower()][place] += 1

    def report(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return `categories` and `verbs`, the most frequent first, each with its count by place."""
        return {"categories": _by_frequency(self._categories), "verbs": _by_frequency(self._verbs)}


def _place(number: int, length: int) -> str:
    if length == 1:
        return "only"
    return "first" if number == 1 else "last" if number == length else "middle"


def _by_frequency(counts: dict[str, collections.Counter[str]]) -> dict[str, dict[str, int]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    return {name: dict(by_place) for name, by_place in ordered}


@checked
def audit(folder: PathLike, vocabulary: Vocabulary, template: str, limits: Sequence[Count]) -> dict[str, Any]:
    """Audit a dataset folder in one pass.

    Args:
      folder: a dataset folder.
      vocabulary: counts tokens.
      template: lays out the prompt, as in `coi_jax.data.prompts`.
      limits: row lengths, in tokens.

    Returns:
      The findings as JSON values: "counts", "leaks", "duplicates", "repeated_ids",
      "uncounted", "degenerate", "lengths", "places".

    Raises:
      UserError: the template is unknown, the folder is not a dataset, or a row of it is not a chain.
    """
    if template not in (*TEMPLATES, *CHATS):
        raise UserError("template", template, nearest(template, [*TEMPLATES, *CHATS]))
    manifest = read_manifest(folder)
    if not manifest["counts"]:
        raise UserError("data", folder, "its manifest counts no chains; build or import the dataset again")
    leaks, duplicates, repeated, degenerate, places = Leaks(), Duplicates(), RepeatedIds(), Degenerate(), Places()
    lengths = Lengths(vocabulary, template, limits)
    total = sum(itertools.chain(*(by.values() for by in manifest["counts"].values())))
    for split, chain in track(_chains(folder, manifest), "auditing", total):
        for measure in (leaks, duplicates, repeated, degenerate, lengths, places):
            measure.add(split, chain)
    return {
        "data": str(folder),
        **{key: manifest[key] for key in ("source", "licence", "counts", "rejected")},
        "vocabulary": vocabulary.name,
        "template": template,
        "leaks": leaks.report(),
        "duplicates": duplicates.report(),
        "repeated_ids": repeated.report(),
        "uncounted": uncounted_splits(folder, manifest),
        "degenerate": degenerate.report(),
        "lengths": lengths.report(),
        "places": places.report(),
    }


def _chains(folder: PathLike, manifest: dict[str, Any]) -> Iterator[tuple[str, Chain]]:
    for split in manifest["counts"]:
        for chain in read_chains(folder, split):
            yield split, chain
