"""Whether a response follows verifiable instructions: the 25 kinds of IFEval (Zhou et al., 2023, arXiv 2311.07911).

A row of IFEval names its instructions by id, each with arguments. Two kinds are computed with other tools than in the
official code, which needs downloads: languages are detected by lingua, and sentences and words are found by regular
expressions.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coi_jax.common.errors import shorten
from coi_jax.common.json_reader import JsonError, parse_json
from coi_jax.evaluation import languages

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]
IsValue = Callable[[Any], bool]

RELATIONS = ("less than", "at least")
CONSTRAINED_RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
QUOTES, ENDS_OF_WORDS = "'\"", re.compile("[.,?!'\"]")
POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")


def _compare(count: int, relation: str, number: int) -> bool:
    """Return whether a count is "less than" or "at least" a number."""
    return count < number if relation == "less than" else count >= number


def _count_words(text: str) -> int:
    return len(re.findall(r"\w+", text))


def _count_sentences(text: str) -> int:
    return sum(bool(part.strip()) for part in _END_OF_SENTENCE.split(text))


def _occurs(text: str, keyword: str) -> int:
    return len(re.findall(re.escape(keyword), text, re.IGNORECASE))


def _has_word(text: str, word: str) -> bool:
    return bool(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE))


def _has_paragraphs(text: str, given: Arguments) -> bool:
    """Return whether the divider `***` makes so many paragraphs; empty ones may stand at the ends alone."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == given["num_paragraphs"]


def _nth_paragraph_begins(text: str, given: Arguments) -> bool:
    """Return whether there are so many paragraphs, with blank lines between, and one begins with a word."""
    paragraphs = [part.strip() for part in text.split("\n\n")]
    place, count = given["nth_paragraph"], sum(map(bool, paragraphs))
    if count != given["num_paragraphs"] or place > count or not paragraphs[place - 1]:
        return False
    word = paragraphs[place - 1].split()[0].lstrip(QUOTES)
    return bool(ENDS_OF_WORDS.split(word.lower())[0] == given["first_word"].lower())


def _has_postscript(text: str, given: Arguments) -> bool:
    marker = given["postscript_marker"].strip()
    return bool(re.search(POSTSCRIPTS.get(marker, re.escape(marker.lower())), text.lower()))


def _count_bullets(text: str) -> int:
    return len(re.findall(r"^\s*\*[^*].*$|^\s*-.*$", text, re.MULTILINE))


def _count_highlights(text: str) -> int:
    single, double = re.findall(r"\*([^\n*]*)\*", text), re.findall(r"\*\*([^\n*]*)\*\*", text)
    return sum(bool(part.strip()) for part in (*single, *double))


def _count_sections(text: str, given: Arguments) -> int:
    return len(re.findall(rf"\s?{re.escape(given['section_spliter'].strip())}\s?\d+\s?", text))


def _is_json(text: str) -> bool:
    body = re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.IGNORECASE)
    try:
        parse_json(body.strip())
    except JsonError:
        return False
    return True


def _has_title(text: str) -> bool:
    return any(title.strip("<>").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _has_two_responses(text: str) -> bool:
    """Return whether the divider `******` makes two different responses; empty ones may stand at the ends alone."""
    parts = [part.strip() for part in text.split("******")]
    found = [part for part in parts if part]
    return all(parts[1:-1]) and len(found) == 2 and found[0] != found[1]


def _is_quoted(text: str) -> bool:
    body = text.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'


def _is_english(text: str) -> bool:
    return languages.detect(text) in ("en", None)


def _ends_with(text: str, phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(phrase.strip().lower())


def _count_capital_words(text: str) -> int:
    return sum(word.isupper() for word in re.findall(r"\w+(?:['-]\w+)*", text))


def _has_letters(text: str, given: Arguments) -> bool:
    return _compare(text.lower().count(given["letter"].lower()), given["let_relation"], given["let_frequency"])


def _has_keyword_so_often(text: str, given: Arguments) -> bool:
    return _compare(_occurs(text, given["keyword"]), given["relation"], given["frequency"])


def _has_capital_words(text: str, given: Arguments) -> bool:
    return _compare(_count_capital_words(text), given["capital_relation"], given["capital_frequency"])


# By the ids that rows of IFEval name.
CHECKS: dict[str, Check] = {
    "keywords:existence": lambda text, given: all(_occurs(text, word) for word in given["keywords"]),
    "keywords:frequency": _has_keyword_so_often,
    "keywords:forbidden_words": lambda text, given: not any(_has_word(text, word) for word in given["forbidden_words"]),
    "keywords:letter_frequency": _has_letters,
    "language:response_language": lambda text, given: languages.detect(text) in (given["language"], None),
    "length_constraints:number_sentences": lambda text, given: _compare(
        _count_sentences(text), given["relation"], given["num_sentences"]
    ),
    "length_constraints:number_words": lambda text, given: _compare(
        _count_words(text), given["relation"], given["num_words"]
    ),
    "length_constraints:number_paragraphs": _has_paragraphs,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_begins,
    "detectable_content:number_placeholders": lambda text, given: (
        len(re.findall(r"\[.*?\]", text)) >= given["num_placeholders"]
    ),
    "detectable_content:postscript": _has_postscript,
    "detectable_format:number_bullet_lists": lambda text, given: _count_bullets(text) == given["num_bullets"],
    "detectable_format:constrained_response": lambda text, _: any(each in text for each in CONSTRAINED_RESPONSES),
    "detectable_format:number_highlighted_sections": lambda text, given: (
        _count_highlights(text) >= given["num_highlights"]
    ),
    "detectable_format:multiple_sections": lambda text, given: _count_sections(text, given) >= given["num_sections"],
    "detectable_format:json_format": lambda text, _: _is_json(text),
    "detectable_format:title": lambda text, _: _has_title(text),
    "combination:two_responses": lambda text, _: _has_two_responses(text),
    "combination:repeat_prompt": lambda text, given: (
        text.strip().lower().startswith(given["prompt_to_repeat"].strip().lower())
    ),
    "startend:end_checker": lambda text, given: _ends_with(text, given["end_phrase"]),
    "startend:quotation": lambda text, _: _is_quoted(text),
    "change_case:capital_word_frequency": _has_capital_words,
    "change_case:english_capital": lambda text, _: text.isupper() and _is_english(text),
    "change_case:english_lowercase": lambda text, _: text.islower() and _is_english(text),
    "punctuation:no_comma": lambda text, _: "," not in text,
}

_KEYWORDS = ("keywords", "forbidden_words")
_TEXTS = ("keyword", "letter", "first_word", "postscript_marker", "section_spliter", "prompt_to_repeat", "end_phrase")
_RELATIONS = ("relation", "let_relation", "capital_relation")
_COUNTS = (
    *("frequency", "let_frequency", "capital_frequency", "nth_paragraph"),
    *("num_sentences", "num_words", "num_paragraphs", "num_placeholders", "num_bullets", "num_highlights"),
    "num_sections",
)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_words(value: Any) -> bool:
    """Return whether a value is a list of texts, each of which has a letter or a digit that can be found."""
    return isinstance(value, list) and all(isinstance(word, str) and re.search(r"\w", word) for word in value)


# The values of the arguments with which an instruction can be verified: others would hold for every response, or none.
ARGUMENTS: dict[str, IsValue] = {
    **dict.fromkeys(_KEYWORDS, _is_words),
    **dict.fromkeys(_TEXTS, lambda value: isinstance(value, str)),
    **dict.fromkeys(_RELATIONS, lambda value: value in RELATIONS),
    **dict.fromkeys(_COUNTS, _is_count),
    "language": lambda value: isinstance(value, str) and value in languages.known(),
}
# The arguments that the checks read; those that are not named need none.
NEEDED: dict[str, tuple[str, ...]] = {
    "keywords:existence": ("keywords",),
    "keywords:frequency": ("keyword", "relation", "frequency"),
    "keywords:forbidden_words": ("forbidden_words",),
    "keywords:letter_frequency": ("letter", "let_relation", "let_frequency"),
    "language:response_language": ("language",),
    "length_constraints:number_sentences": ("relation", "num_sentences"),
    "length_constraints:number_words": ("relation", "num_words"),
    "length_constraints:number_paragraphs": ("num_paragraphs",),
    "length_constraints:nth_paragraph_first_word": ("num_paragraphs", "nth_paragraph", "first_word"),
    "detectable_content:number_placeholders": ("num_placeholders",),
    "detectable_content:postscript": ("postscript_marker",),
    "detectable_format:number_bullet_lists": ("num_bullets",),
    "detectable_format:number_highlighted_sections": ("num_highlights",),
    "detectable_format:multiple_sections": ("section_spliter", "num_sections"),
    "combination:repeat_prompt": ("prompt_to_repeat",),
    "startend:end_checker": ("end_phrase",),
    "change_case:capital_word_frequency": ("capital_relation", "capital_frequency"),
}


def argument_fault(id: Any, given: Arguments) -> str:
    """Return why an instruction cannot be verified; "" where it can.

    Args:
      id: of the instruction, as a row has it.
      given: its arguments.
    """
    if not isinstance(id, str) or id not in CHECKS:
        return f"instruction {shorten(id, 60)} is unknown"
    for name in NEEDED.get(id, ()):
        if name not in given:
            return f"argument {name} of {id} is missing"
        if not ARGUMENTS[name](given[name]):
            return f"argument {name} of {id} is {shorten(given[name], 60)}, by which nothing can be verified"
    return ""


def followed(text: str, ids: Sequence[str], arguments: Sequence[Arguments], *, loose: bool = False) -> list[bool]:
    """Return whether a response follows each of some instructions; an empty one follows none.

    Args:
      text: the response.
      ids: keys of `CHECKS`.
      arguments: of each instruction.
      loose: whether it is enough that the response follows it without its first or last line or its asterisks, which
        models put around what was asked for.
    """
    texts = [each for each in (_variants(text) if loose else [text]) if each.strip()]
    pairs = zip(ids, arguments, strict=True)
    return [any(CHECKS[id](each, given) for each in texts) for id, given in pairs]


def _variants(text: str) -> list[str]:
    """Return a response with and without its first line, last line and asterisks."""
    lines = text.split("\n")
    cuts = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(itertools.chain.from_iterable((cut, cut.replace("*", "")) for cut in cuts))
