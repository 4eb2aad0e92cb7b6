"""An audit's findings as text that fits a terminal."""

import collections
import math
from typing import Any

from data_pipeline.text_tables import text_table

MOST_LINES = 12
PLACES = ("only", "first", "middle", "last")


def text_report(findings: dict[str, Any]) -> str:
    """Return the findings of `data_pipeline.audit.audit`, section by section."""
    sections = (_head, _leaks, _duplicates, _repeated_ids, _degenerate, _lengths, _cuts, _categories, _verbs)
    return "\n\n".join("\n".join(section(findings)) for section in sections)


def _share(count: int, total: int) -> str:
    if not count:
        return "0"
    if count == total:
        return f"{count:,} (100%)"
    return f"{count:,} ({math.floor(1000 * count / total + 0.5) / 10:.1f}%)"  # halves go up, as in print


def _first_lines(lines: list[str], most: int, what: str) -> list[str]:
    """Return the head of a table and its first `most` lines, and how many are left out."""
    left = len(lines) - 1 - most
    return lines if left <= 0 else [*lines[: most + 1], f"… and {left:,} more {what}: --json has all"]


def _head(findings: dict[str, Any]) -> list[str]:
    counts = findings["counts"]
    lengths = sorted({int(length) for by in counts.values() for length in by})
    rows = ([split, *(by.get(str(length), 0) or "–" for length in lengths)] for split, by in counts.items())
    title = [f"{findings['data']} ({findings['source']}, {findings['licence']})", "", "Chains by split and length"]
    rejected = sum(findings["rejected"].values())
    uncounted = "holds chains that manifest.json does not count: no command reads it"
    left = (f"{name}.jsonl {uncounted}" for name in findings["uncounted"])
    return [*title, *text_table(["split", *map(str, lengths)], rows), f"{rejected:,} rejected rows", *left]


def _leaks(findings: dict[str, Any]) -> list[str]:
    kinds = ("row", "instruction", "input", "first_step")
    found = [line for line in findings["leaks"] if any(line[kind] for kind in kinds)]
    title = "Leaks: chains whose row (instruction and input), instruction, input, or first step is in both splits"
    if not found:
        return [title, "none"]
    rows = (
        [
            f"{line['split']} in {line['within']}",
            line["length"],
            line["chains"],
            *(_share(line[kind], line["chains"]) for kind in kinds),
        ]
        for line in found
    )
    return [title, *text_table(["splits", "length", "chains", "row", "instruction", "input", "first step"], rows)]


def _duplicates(findings: dict[str, Any]) -> list[str]:
    found = {split: line for split, line in findings["duplicates"].items() if line["rows"]}
    title = "Duplicates within a split: the same instruction and input; the same outputs too"
    if not found:
        return [title, "none"]
    rows = ([split, line["rows"], line["chains"], _pair(*line["pairs"][0])] for split, line in found.items())
    return [title, *text_table(["split", "rows", "chains", "for example"], rows)]


def _repeated_ids(findings: dict[str, Any]) -> list[str]:
    title = "Repeated ids: rows of a split that share an id, by which predictions are kept"
    found = findings["repeated_ids"]
    if not found:
        return [title, "none"]
    rows = ([split, len(times), sum(times.values()), next(iter(times))] for split, times in found.items())
    return [title, *text_table(["split", "ids", "rows", "for example"], rows)]


def _pair(first: str, repeat: str) -> str:
    source = first.partition("#")[0]
    return f"{first} = {repeat.removeprefix(source)}"


def _degenerate(findings: dict[str, Any]) -> list[str]:
    """Return one line for each distinct output: the same one may stand in many chains."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = collections.defaultdict(list)
    for line in findings["degenerate"]:
        groups[line["fault"], line["words"], line["begins"]].append(line)
    title = f"Degenerate outputs, empty, long, or repeating their words: {len(findings['degenerate']):,}"
    if not groups:
        return [title]
    rows = (
        [
            group[0]["id"],
            group[0]["step"],
            len(group),
            fault,
            words,
            f"{group[0]['repeated']:.0%}",
            " ".join(begins.split())[:20].rstrip(),
        ]
        for (fault, words, begins), group in groups.items()
    )
    head = ["chain", "step", "times", "fault", "words", "repeated", "begins"]
    return [title, *_first_lines(text_table(head, rows), MOST_LINES, "outputs")]


def _lengths(findings: dict[str, Any]) -> list[str]:
    names = {"input_words": "input, words", "target_words": "targets, words", "tokens": "prompt + targets, tokens"}
    lines = [f"Lengths, percentiles ({findings['vocabulary']} tokens, {findings['template']} template)"]
    percentiles = list(findings["lengths"][0]["tokens"]) if findings["lengths"] else []
    rows = (
        [f"{line['split']} {line['length']}", name, *line[key].values()]
        for line in findings["lengths"]
        for key, name in names.items()
    )
    head = ["split, length", "measure", *("max" if p == "100" else f"{p}%" for p in percentiles)]
    return [*lines, *text_table(head, rows)]


def _cuts(findings: dict[str, Any]) -> list[str]:
    limits = list(findings["lengths"][0]["cut"]) if findings["lengths"] else []
    rows = (
        [
            f"{line['split']} {line['length']}",
            line["chains"],
            *(_share(line["cut"][limit], line["chains"]) for limit in limits),
        ]
        for line in findings["lengths"]
    )
    title = "Chains longer than a row of so many tokens: a cut there takes from the final answer"
    return [title, *text_table(["split, length", "chains", *limits], rows)]


def _categories(findings: dict[str, Any]) -> list[str]:
    return _places("Categories by place in the chain", "category", findings["places"]["categories"])


def _verbs(findings: dict[str, Any]) -> list[str]:
    return _places("First words of instructions by place in the chain", "word", findings["places"]["verbs"])


def _places(title: str, what: str, counts: dict[str, dict[str, int]]) -> list[str]:
    if not counts:
        return [title, "none given"]
    rows = ([name[:40], *(by.get(place, 0) for place in PLACES)] for name, by in counts.items())
    return [
        title,
        *_first_lines(text_table([what, *PLACES], rows), MOST_LINES, "words" if what == "word" else "categories"),
    ]
