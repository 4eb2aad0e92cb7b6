"""Reads rows of the release as chains.

Most rows have as many instructions, joined with " and then ", as outputs. The irregular ones are read with what the
regular ones teach (`Survey`): which texts are instructions, and which instruction gave which output.
"""

import collections
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coi_jax.chains.chain import JOINER, Chain, Step, join, parse
from coi_jax.common import files
from coi_jax.common.json_reader import is_utf8
from data_pipeline.release.release_files import FILES, Form, ReleaseFile
from data_pipeline.release.row_places import align

NOT_GIVEN = ""  # the instruction of a step that the release does not tell
TEXT_KEYS = ("instruction", "input", "output")
FORM_KEYS = {Form.CHAIN: (), Form.FUSED: (), Form.SUMMARY: ("eng_output",)}
LONGEST = max(length for file in FILES for length in file.lengths)  # chain of the release
KNOWN_KEYS = frozenset((*TEXT_KEYS, "eng_output", "summarized_coi"))


class NotAChain(ValueError):
    """A row that is not a chain; the message is the reason that goes with it into rejected.jsonl."""


@dataclass(frozen=True)
class Reading:
    """The chain of a row; `note` says how an irregular row was read, None for a regular one."""

    chain: Chain
    note: str | None = None


@dataclass
class Survey:
    """Knowledge from the rows of a release about its irregular ones: `learn` all of them, then `settle`."""

    instructions: collections.Counter[str] = field(default_factory=collections.Counter)
    _long: list[tuple[str, tuple[str, ...], tuple[str, ...], int | None]] = field(default_factory=list)
    _first: dict[str, collections.Counter[str]] = field(default_factory=dict)
    _chains: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    _places: dict[str, dict[int, tuple[str, ...]]] = field(default_factory=dict)
    _located: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)

    def learn(self, row: Any, place: int | None = None) -> None:
        """Take in a row whose instructions are not fused.

        Args:
          row: a JSON value.
          place: its number in a file that has a fused copy; None for rows of other files.
        """
        if fault(row, Form.CHAIN):
            return
        instructions, outputs = split_instruction(row["instruction"]), split_output(row["output"])
        if not 1 < len(outputs) <= LONGEST:
            return
        if len(instructions) > len(outputs):
            self._long.append((row["input"], instructions, outputs, place))
        elif len(instructions) == len(outputs):
            self.instructions.update(instructions)
            self._remember(row["input"], instructions, outputs, place)

    def settle(self) -> None:
        """Group the instructions of the rows that had too many, once all rows are known."""
        for text, parts, outputs, place in self._long:
            self._remember(text, group(parts, len(outputs), self), outputs, place)
        self._long.clear()

    def _remember(self, text: str, instructions: tuple[str, ...], outputs: Sequence[str], place: int | None) -> None:
        first = self._first.setdefault(_key(text, outputs[0]), collections.Counter())
        first[instructions[0]] += 1
        key = _key(text, *outputs)
        self._chains.setdefault(key, []).append(instructions)
        if place is not None:
            self._places.setdefault(key, {})[place] = instructions

    def locate(self, source: str, rows: Iterable[Any]) -> None:
        """Find which row of the original each row of a fused copy stands for, by the rows around it.

        Args:
          source: of the copy, as `Chain.source`.
          rows: all rows of the copy.
        """
        candidates = [self._candidates(row) for row in rows]
        for number, place in enumerate(align(candidates)):
            if place is not None:
                self._located[source, number] = candidates[number][place]

    def _candidates(self, row: Any) -> dict[int, tuple[str, ...]]:
        """Return the rows of the original that have a fused row's input and outputs, with their instructions."""
        if fault(row, Form.FUSED):
            return {}
        return self._places.get(_key(row["input"], *split_output(row["output"])), {})

    def located(self, source: str, number: int) -> tuple[str, ...] | None:
        """Return the instructions of the original of row `number` of a fused copy; None where it is not known."""
        return self._located.get((source, number))

    def first_instruction(self, text: str, output: str) -> str:
        """Return the instruction that most often made `output` of the input `text`, or NOT_GIVEN."""
        found = self._first.get(_key(text, output))
        return found.most_common(1)[0][0] if found else NOT_GIVEN

    def chains(self, text: str, outputs: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Return the instructions of every chain that made these outputs of the input `text`, without repeats."""
        return tuple(dict.fromkeys(self._chains.get(_key(text, *outputs), ())))


def _key(*texts: str) -> str:
    return files.digest(texts)[:32]


def split_instruction(instruction: str) -> tuple[str, ...]:
    """Return the parts of "A and then B", without the white space around them."""
    return tuple(part.strip() for part in instruction.split(JOINER))


def split_output(output: str) -> tuple[str, ...]:
    """Return the outputs behind their labels, without the white space before a label (885 rows of coi_2.json)."""
    outputs = parse(output)
    return outputs if len(outputs) == 1 else tuple(part.strip() for part in outputs)


def fault(row: Any, form: Form) -> str | None:
    """Return the reason why a row cannot be read at all, None where it can."""
    if not isinstance(row, dict):
        return "not a JSON object"
    for key in (*TEXT_KEYS, *FORM_KEYS[form]):
        if key not in row:
            return f"no key {key!r}"
    for key in KNOWN_KEYS & row.keys():
        if not isinstance(row[key], str):
            return f"{key!r} is not a string"
    if not row["instruction"].strip():
        return "empty instruction"
    return None if is_utf8(row) else "holds half a surrogate pair, which UTF-8 cannot write"


def writable(row: Any) -> Any:
    """Return the row itself, or its JSON text in ASCII where the row cannot be written as UTF-8."""
    return row if is_utf8(row) else json.dumps(row)


def row_key(row: Any) -> str:
    """Return a key that rows of the same example share: of the instruction shown, the input and the output."""
    texts = row
    if isinstance(row, dict):
        texts = [row.get("summarized_coi", row.get("instruction")), row.get("input"), row.get("output")]
    return hashlib.sha256(json.dumps(texts).encode("ascii")).hexdigest()[:32]


def read(row: Any, file: ReleaseFile, number: int, survey: Survey) -> Reading:
    """Return the chain of row `number` (from 0) of a file.

    Args:
      row: a JSON value.
      file: of the release.
      number: of the row, from 0.
      survey: of all rows, for irregular ones.

    Raises:
      NotAChain: with the reason.
    """
    reason = fault(row, file.form)
    if reason:
        raise NotAChain(reason)
    outputs = (row["eng_output"], row["output"]) if file.form is Form.SUMMARY else split_output(row["output"])
    if len(outputs) not in file.lengths:
        due = " or ".join(map(str, file.lengths))
        raise NotAChain(f"{len(outputs)} outputs where {due} are due")
    instructions, note = _instructions(row, outputs, file, number, survey)
    task = file.path.rpartition("/")[2] if file.split == "bbh" else None
    steps = tuple(Step(i, o, task=task) for i, o in zip(instructions, outputs, strict=True))
    shown = row.get("summarized_coi", row["instruction"])
    chain = Chain(f"{file.source}#{number}", file.source, row["input"], shown, steps)
    if not file.is_training and _is_spelled_otherwise(row["output"], chain):
        chain = replace(chain, published_targets=row["output"])
    return Reading(chain, note)


def _is_spelled_otherwise(output: str, chain: Chain) -> bool:
    """Return whether a row's output differs from the canonical text in more than white space."""
    return len(parse(output)) > 1 and output.split() != chain.targets.split()


def _instructions(
    row: dict[str, str], outputs: Sequence[str], file: ReleaseFile, number: int, survey: Survey
) -> tuple[tuple[str, ...], str | None]:
    """Return the instruction of each step, and how they were found where that is not plain."""
    if len(outputs) == 1:
        return (row["instruction"],), None
    if file.form is Form.FUSED and "summarized_coi" not in row:
        return _recovered(row, outputs, survey, survey.located(file.source, number))
    parts = split_instruction(row["instruction"])
    if len(parts) == len(outputs):
        return parts, None
    if len(parts) < len(outputs):
        instructions, note = _recovered(row, outputs, survey)
        return instructions, note or "fused instruction: every step's instruction known from another row"
    return group(parts, len(outputs), survey), "more parts than outputs: grouped"


def _recovered(
    row: dict[str, str], outputs: Sequence[str], survey: Survey, located: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], str | None]:
    """Return the instructions behind a fused one, from other rows with the same input and outputs.

    Args:
      row: the fused row.
      outputs: its outputs.
      survey: of all rows.
      located: the instructions of the row of the original that has its place.
    """
    known = survey.chains(row["input"], outputs)
    if len(known) == 1:
        return known[0], None
    if located is not None:
        return located, f"fused instruction: of {len(known)} chains with these outputs the one at its place in the file"
    if known:
        nearest = max(known, key=lambda instructions: _shared_words(join(instructions), row["instruction"]))
        return nearest, f"fused instruction: of {len(known)} chains with these outputs the one with the nearest words"
    first = survey.first_instruction(row["input"], outputs[0])
    found = "first step's instruction known from other rows" if first else "no step's instruction known"
    return (first, *(NOT_GIVEN,) * (len(outputs) - 1)), f"fused instruction: {found}"


def _shared_words(left: str, right: str) -> float:
    """Return the Jaccard index of the two texts' words."""
    words, others = set(left.lower().split()), set(right.lower().split())
    return len(words & others) / len(words | others)


def group(parts: Sequence[str], count: int, survey: Survey) -> tuple[str, ...]:
    """Put neighbouring parts together until there are `count` instructions.

    Of all ways the one with the most instructions known from regular rows, then with the best known ones, then with
    the earliest ends, so that a part nobody knows stays with the last step. The time grows with the parts, not with the
    number of ways.

    Example: with "A." known, `("A.", "Do b", "do c.")` in two → `("A.", "Do b and then do c.")`.

    Args:
      parts: of an instruction that was split.
      count: of instructions, no more than parts.
      survey: knows regular instructions.
    """
    known = _known_spans(parts, count, survey)
    best = [[*(spans.get(len(parts), 0) for spans in known), -math.inf]]  # of one instruction; none is left at the end
    for _ in range(1, count):
        best.append(_one_instruction_more(best[-1], known))
    ends = [0]
    for now, after in zip(best[:0:-1], best[-2::-1], strict=True):
        start = ends[-1]
        ways = range(start + 1, len(parts))
        ends.append(next(end for end in ways if known[start].get(end, 0) + after[end] == now[start]))
    return tuple(join(parts[start:end]) for start, end in itertools.pairwise([*ends, len(parts)]))


def _known_spans(parts: Sequence[str], count: int, survey: Survey) -> list[dict[int, int]]:
    """Return, for each place, the ends of the known instructions that begin there, with what they are worth.

    The number of known instructions outweighs how often they were seen.
    """
    longest = 1 + max((text.count(JOINER) for text in survey.instructions), default=0)
    weight = 1 + count * survey.instructions.total()
    known: list[dict[int, int]] = [{} for _ in parts]
    for start in range(len(parts)):
        for end in range(start + 1, min(start + longest, len(parts)) + 1):
            seen = survey.instructions[join(parts[start:end])]
            if seen:
                known[start][end] = weight + seen
    return known


def _one_instruction_more(best: Sequence[float], known: Sequence[dict[int, int]]) -> list[float]:
    """Return what the parts from each place on are worth at best, in one instruction more than `best` is of."""
    found, unknown = [-math.inf] * len(best), -math.inf  # `unknown`: where nobody knows the first instruction
    for start in reversed(range(len(known))):
        unknown = max(unknown, best[start + 1])
        found[start] = max([unknown, *(worth + best[end] for end, worth in known[start].items())])
    return found
