r"""The chain: a list of instructions in which the output of one is the input of the next.

The paper writes a chain's outputs as one text, `Task 1 output and task 2 input: A Task 2 output: B`. `render` has one
canonical spelling of it, `parse` reads that, every spelling of the official release (`Task2 output:`, labels with
and without a line of their own) and labels in Markdown (`**Task 1 output:**`, `### Task 1 output:`). A label inside an
output is escaped with a backslash, so that `parse(render(outputs)) == outputs` whatever the outputs hold.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field

from coi_jax.common.arguments import Count, checked, checked_fields
from coi_jax.common.errors import UserError

JOINER = " and then "
OPTIONAL_KEYS = {"published_targets": str, "details": dict}  # of a row, with the types of their values
KINDS = {str: "text", list: "a list", dict: "an object", type(None): "null"}

_LABEL = re.compile(
    r"""
    (?P<line>^[ \t]*(?:(?:\#{1,6}|[-+*>]|[0-9]{1,3}[.)])[ \t]+)*)?  # a heading, quotation, or item of a list
    (?P<mark>[*_`]{1,3})?  # emphasis, which ends before or after the colon, or at the end of a line that begins with it
    (?<!\\)task[ ]?(?P<number>[0-9]+)[ ]output(?:[ ]and[ ]task[ ]?(?P<next>[0-9]+)[ ]input)?
    (?(mark)(?:(?P=mark):|:(?P=mark)|(?(line)(?P<open>:)|(?!)))|:)
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
# The look-behind lets a run of backslashes be tried once, and not from each of its backslashes.
_LABEL_IN_CONTENT = re.compile(
    r"(?<!\\)(\\*)(task ?[0-9]+ output(?: and task ?[0-9]+ input)?[*_`]{0,3}:)", re.IGNORECASE
)


@checked_fields
@dataclass(frozen=True)
class Step:
    """One instruction of a chain and its reference output (None where there is none)."""

    instruction: str
    output: str | None
    category: str | None = None
    task: str | None = None


@checked_fields
@dataclass(frozen=True)
class Chain:
    """An input, the instruction that the model is shown, and the steps behind it.

    A single instruction is a chain of length 1. `instruction` is the steps' instructions joined with " and then ", or
    another wording of them. `published_targets` is the text of the outputs as its publisher spells it, where that is
    another than `targets`: the reference of scores that are compared with published ones. `details` is what else the
    source says of the row, as a JSON object: what scores need, or where a worked answer comes from.
    """

    id: str
    source: str
    input: str
    instruction: str
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    published_targets: str | None = None
    details: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def length(self) -> int:
        """The number of steps, σ."""
        return len(self.steps)

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The reference output of every step."""
        return tuple(step.output for step in self.steps)

    @property
    def targets(self) -> str:
        """The text that a model is tuned to write: `render` of the outputs, a missing one as empty."""
        return render([output or "" for output in self.outputs])

    def row(self) -> dict[str, Any]:
        """Return the chain as a JSON object, a line of a dataset's file."""
        row = asdict(self) | {"steps": [asdict(step) for step in self.steps]}
        return {key: value for key, value in row.items() if key not in OPTIONAL_KEYS or value is not None}

    @classmethod
    @checked
    def from_row(cls, row: dict[str, Any]) -> "Chain":
        """Return the chain of a JSON object.

        Raises:
          UserError: a key is missing, unknown, or of the wrong type; it names the key.
        """
        optional = {key: kind for key, kind in OPTIONAL_KEYS.items() if key in row}
        _check_row(row, {"id": str, "source": str, "input": str, "instruction": str, "steps": list} | optional, "row")
        if not row["steps"]:
            raise UserError("steps", row["id"], "a chain has at least one step")
        return cls(**row | {"steps": tuple(_step(step) for step in row["steps"])})


def _step(row: Any) -> Step:
    if not isinstance(row, dict):
        raise UserError("steps", row, "a step is a JSON object")
    _check_row(row, dict.fromkeys(("output", "category", "task"), (str, type(None))) | {"instruction": str}, "step")
    return Step(**row)


def _check_row(row: dict[str, Any], types: dict[str, Any], what: str) -> None:
    if row.keys() != types.keys():
        may = f", and may be {', '.join(OPTIONAL_KEYS)} besides" if what == "row" else ""
        hint = f"they must be {', '.join(sorted(types.keys() - OPTIONAL_KEYS.keys()))}{may}"
        raise UserError(f"keys of a {what}", ", ".join(sorted(row)), hint)
    for key, kind in types.items():
        if not isinstance(row[key], kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            due = " or ".join(KINDS[each] for each in kinds)
            raise UserError(f"{key} of a {what}", row[key], f"must be {due}")


@checked
def join(instructions: Sequence[str]) -> str:
    """Join instructions into one: "A and then B"."""
    return JOINER.join(instructions)


def label(step: int, length: int) -> str:
    """Return the label before the output of `step` (from 1) in a chain of `length` steps."""
    if step == length:
        return f"Task {step} output:"
    return f"Task {step} output and task {step + 1} input:"


@checked
def render(outputs: Annotated[Sequence[str], Field(min_length=1)]) -> str:
    r"""Render a chain's outputs in their canonical text.

    Example: `("A", "B")` → `"Task 1 output and task 2 input: A\nTask 2 output: B"`. A single output has no label.
    """
    if len(outputs) == 1:
        return _escape(outputs[0])
    return "\n".join(f"{label(k, len(outputs))} {_escape(output)}" for k, output in enumerate(outputs, 1))


@checked
def parse(text: str) -> tuple[str, ...]:
    """Parse the outputs in a text, in any spelling; a text without labels is one output.

    Labels count from 1 without a gap; a label of another number is read as content. What `render` wrote comes back
    exactly; from other spellings the white space around an output is dropped.
    """
    labels = _labels(text)
    if not labels:
        return (_unescape(text),)
    spans = _spans(labels, len(text))
    exact = tuple(_unescape(_trim(text[start:end], end == len(text))) for start, end in spans)
    if render(exact) == text:
        return exact
    contents = (text[start:end].strip() for start, end in spans)
    return tuple(_unescape(_close(content, match)) for content, match in zip(contents, labels, strict=True))


def _close(content: str, label: re.Match[str]) -> str:
    """Return a content without the end of the emphasis that its label began, if it did not end there."""
    return content.removesuffix(label["mark"]).rstrip() if label["open"] else content


@checked
def is_well_formed(text: str, length: Count) -> bool:
    """Return whether a text has exactly the labels of a chain of `length` steps, in order, and nothing before them."""
    labels = _labels(text)
    if length == 1:
        return not labels
    forward = [match["next"] is not None for match in labels]
    starts_at_once = bool(labels) and not text[: labels[0].start()].strip()
    return starts_at_once and forward == [True] * (length - 1) + [False]


def label_starts(text: str) -> list[int]:
    """Return the places in a text where the labels of its steps begin; none for a text without labels."""
    return [match.start() for match in _labels(text)]


def respell_labels(text: str, like: str) -> str:
    """Return a text with the labels of another one in place of those that say the same.

    Example: `("Task 1 output: a", "task1 output: b")` → `"task1 output: a"`.

    Args:
      text: of any spelling.
      like: whose labels are taken.
    """
    parts, end = [], 0
    for label, other in zip(_labels(text), _labels(like), strict=False):
        if (label["next"] is None) == (other["next"] is None):
            parts += [text[end : label.start()], other[0]]
            end = label.end()
    return "".join([*parts, text[end:]])


def _labels(text: str) -> list[re.Match[str]]:
    """Return the labels that count: numbered 1, 2, 3 …, and each naming the step after it, if any."""
    found: list[re.Match[str]] = []
    for match in _LABEL.finditer(text):
        number = len(found) + 1
        if match["number"].lstrip("0") == str(number) and match["next"] in (None, str(number + 1)):
            found.append(match)
    return found


def _spans(labels: list[re.Match[str]], end: int) -> list[tuple[int, int]]:
    return list(zip([m.end() for m in labels], [*(m.start() for m in labels[1:]), end], strict=True))


def _trim(content: str, last: bool) -> str:
    content = content.removeprefix(" ")
    return content if last else content.removesuffix("\n")


def _escape(output: str) -> str:
    return _LABEL_IN_CONTENT.sub(r"\\\1\2", output)


def _unescape(content: str) -> str:
    return _LABEL_IN_CONTENT.sub(lambda match: match[1].removeprefix("\\") + match[2], content)
