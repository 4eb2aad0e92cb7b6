"""An audit's findings as text that fits a terminal."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

WIDTH = 100
MOST_LINES = 12
PLACES = ("only", "first", "middle", "last")


def text_report(findings: dict[str, Any]) -> str:
    """The findings of `data_pipeline.audit.audit`, section by section."""
    sections = (_head, _leaks, _duplicates, _degenerate, _lengths, _cuts, _categories, _verbs)
    return "\n\n".join("\n".join(section(findings)) for section in sections)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right, no wider than needed."""
    cells = [list(map(str, head)), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(_align(cell, width, k) for k, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in cells]  # fmt: skip


def _align(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _share(count: int, total: int) -> str:
    if not count:
        return "0"
    return f"{count:,} ({math.floor(1000 * count / total + 0.5) / 10:.1f}%)"  # halves go up, as in print


def _first_lines(lines: list[str], most: int, what: str) -> list[str]:
    """The head of a table and its first `most` lines, and how many are left out."""
    left = len(lines) - 1 - most
    return lines if left <= 0 else [*lines[: most + 1], f"… and {left:,} more {what}: --json has all"]


def _head(findings: dict[str, Any]) -> list[str]:
    counts = findings["counts"]
    lengths = sorted({int(length) for by in counts.values() for length in by})
    rows = ([split, *(by.get(str(length), 0) or "–" for length in lengths)] for split, by in counts.items())
    title = f"{findings['data']}: chains by split and length ({findings['source']}, {findings['licence']})"
    rejected = sum(findings["rejected"].values())
    return [title, *table(["split", *map(str, lengths)], rows), f"{rejected:,} rejected rows"]


def _leaks(findings: dict[str, Any]) -> list[str]:
    found = [line for line in findings["leaks"] if line["row"] or line["instruction"] or line["input"]]
    title = "Leaks: chains of a split whose row (instruction and input), instruction, or input another split has too"
    if not found:
        return [title, "none"]
    rows = ([f"{line['split']} in {line['within']}", line["length"], line["chains"],
             *(_share(line[kind], line["chains"]) for kind in ("row", "instruction", "input"))]
            for line in found)  # fmt: skip
    return [title, *table(["splits", "length", "chains", "row", "instruction", "input"], rows)]


def _duplicates(findings: dict[str, Any]) -> list[str]:
    found = {split: line for split, line in findings["duplicates"].items() if line["rows"]}
    title = "Duplicates within a split: the same instruction and input; the same outputs too"
    if not found:
        return [title, "none"]
    rows = ([split, line["rows"], line["chains"], " = ".join(line["pairs"][0])] for split, line in found.items())
    return [title, *table(["split", "rows", "chains", "for example"], rows)]


def _degenerate(findings: dict[str, Any]) -> list[str]:
    found = findings["degenerate"]
    title = f"Degenerate outputs (empty, repeating their own words, or very long): {len(found):,}"
    if not found:
        return [title]
    rows = ([line["id"], line["step"], line["fault"], line["words"], f"{line['repeated']:.0%}",
             " ".join(line["begins"].split())[:28]] for line in found)  # fmt: skip
    return [
        title,
        *_first_lines(table(["chain", "step", "fault", "words", "repeated", "begins"], rows), MOST_LINES, "outputs"),
    ]


def _lengths(findings: dict[str, Any]) -> list[str]:
    names = {"input_words": "input, words", "target_words": "targets, words", "tokens": "prompt + targets, tokens"}
    lines = [f"Lengths, percentiles ({findings['vocabulary']} tokens, {findings['template']} template)"]
    percentiles = list(findings["lengths"][0]["tokens"]) if findings["lengths"] else []
    rows = ([f"{line['split']} {line['length']}", name, *line[key].values()]
            for line in findings["lengths"] for key, name in names.items())  # fmt: skip
    head = ["split, length", "measure", *("max" if p == "100" else f"{p}%" for p in percentiles)]
    return [*lines, *table(head, rows)]


def _cuts(findings: dict[str, Any]) -> list[str]:
    limits = list(findings["lengths"][0]["cut"]) if findings["lengths"] else []
    rows = ([f"{line['split']} {line['length']}", line["chains"],
             *(_share(line["cut"][limit], line["chains"]) for limit in limits)]
            for line in findings["lengths"])  # fmt: skip
    title = "Chains longer than a row of so many tokens: a cut there takes from the final answer"
    return [title, *table(["split, length", "chains", *limits], rows)]


def _categories(findings: dict[str, Any]) -> list[str]:
    return _places("Categories by place in the chain", "category", findings["places"]["categories"])


def _verbs(findings: dict[str, Any]) -> list[str]:
    return _places("First words of instructions by place in the chain", "word", findings["places"]["verbs"])


def _places(title: str, what: str, counts: dict[str, dict[str, int]]) -> list[str]:
    if not counts:
        return [title, "none given"]
    rows = ([name[:40], *(by.get(place, 0) for place in PLACES)] for name, by in counts.items())
    return [title, *_first_lines(table([what, *PLACES], rows), MOST_LINES, "words" if what == "word" else "categories")]
