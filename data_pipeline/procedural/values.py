"""The types of value that operations take and give, each with its one text form.

A type draws random values, writes one as text and reads it back: `read(text(value)) == value`. A step's output is
checked by reading the text before it, so a form is never ambiguous.

| type | text |
|---|---|
| words | `river, lamp, stone` |
| numbers | `4, -17, 30` |
| sentence | `The old doctor saw a bird near the lake today.` |
| paragraph | two sentences or more, with a space between |
| dates | `2021-03-14, 1999-12-01` |
| record | `name: Ada; city: Oslo; job: pilot` |
| scores | `Ada: 31; Ben: 7` |
| answer | a closed answer; no operation takes one |
"""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from data_pipeline.procedural import lexicon

MARKS = ".!?"
"""What a sentence may end with."""

FIRST_DAY = datetime.date(1950, 1, 1)
LAST_DAY = datetime.date(2049, 12, 31)


class Sentence(NamedTuple):
    """The words of a sentence and the mark that ends it."""

    words: tuple[str, ...]
    mark: str


Words = tuple[str, ...]
Numbers = tuple[int, ...]
Paragraph = tuple[Sentence, ...]
Dates = tuple[datetime.date, ...]
Record = tuple[tuple[str, str], ...]
Scores = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ValueType:
    """A type of value.

    Attributes:
      name: its name in the catalogue.
      draw: a random value of a given number of items (words, numbers, sentences, fields …).
      text: the text of a value.
      read: the value of a text; raises ValueError where the text is not of this type.
    """

    name: str
    draw: Callable[[Random, int], Any]
    text: Callable[[Any], str]
    read: Callable[[str], Any]


def _draw_words(random: Random, items: int) -> Words:
    """Return distinct words, or now and then one of them twice."""
    words = random.sample(lexicon.NOUNS, items)
    if items > 2 and random.random() < 0.25:
        source, target = random.sample(range(items), 2)
        words[target] = words[source]
    return tuple(words)


def _read_words(text: str) -> Words:
    words = tuple(text.split(", "))
    if not all(re.fullmatch(r"[^,;:.!?\s]+", word) for word in words):
        raise ValueError(f"not words: {text!r}")
    return words


def _draw_numbers(random: Random, items: int) -> Numbers:
    return tuple(random.randint(1, 60) for _ in range(items))


def _read_numbers(text: str) -> Numbers:
    if not re.fullmatch(r"-?[0-9]+(, -?[0-9]+)*", text):
        raise ValueError(f"not numbers: {text!r}")
    return tuple(int(number) for number in text.split(", "))


def _noun_phrase(random: Random) -> list[str]:
    adjective = [random.choice(lexicon.ADJECTIVES)] if random.random() < 0.6 else []
    return ["the", *adjective, random.choice(lexicon.NOUNS)]


def _sentence(random: Random) -> Sentence:
    words = [*_noun_phrase(random), random.choice(lexicon.VERBS), *_noun_phrase(random)]
    if random.random() < 0.5:
        words += [random.choice(lexicon.PREPOSITIONS), *_noun_phrase(random)]
    if random.random() < 0.5:
        words += random.choice(lexicon.TIMES).split()
    return Sentence((words[0].capitalize(), *words[1:]), random.choice(".!"))


def _draw_sentence(random: Random, _: int) -> Sentence:
    return _sentence(random)


def _sentence_text(sentence: Sentence) -> str:
    return " ".join(sentence.words) + sentence.mark


def _read_sentence(text: str) -> Sentence:
    words, mark = tuple(text[:-1].split(" ")), text[-1:]
    if not mark or mark not in MARKS or not all(re.fullmatch(r"[^.!?;:\s]+", word) for word in words):
        raise ValueError(f"not a sentence: {text!r}")
    return Sentence(words, mark)


def _draw_paragraph(random: Random, items: int) -> Paragraph:
    return tuple(_sentence(random) for _ in range(max(2, items)))


def _paragraph_text(paragraph: Paragraph) -> str:
    return " ".join(_sentence_text(sentence) for sentence in paragraph)


def _read_paragraph(text: str) -> Paragraph:
    return tuple(_read_sentence(sentence) for sentence in re.split(r"(?<=[.!?]) ", text))


def _draw_dates(random: Random, items: int) -> Dates:
    """Return dates within a few years of each other."""
    middle = random.randint(FIRST_DAY.toordinal() + 1200, LAST_DAY.toordinal() - 1200)
    return tuple(datetime.date.fromordinal(middle + random.randint(-1200, 1200)) for _ in range(items))


def _read_dates(text: str) -> Dates:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(, [0-9]{4}-[0-9]{2}-[0-9]{2})*", text):
        raise ValueError(f"not dates: {text!r}")
    return tuple(datetime.date.fromisoformat(day) for day in text.split(", "))


def _draw_record(random: Random, items: int) -> Record:
    fields = random.sample(sorted(lexicon.FIELDS), items)
    return tuple((field, random.choice(lexicon.FIELDS[field])) for field in fields)


def _pairs_text(pairs: tuple[tuple[str, object], ...]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in pairs)


def _read_record(text: str) -> Record:
    pairs = tuple(tuple(pair.split(": ")) for pair in text.split("; "))
    if not all(len(pair) == 2 and all(re.fullmatch(r"[^,;:.!?\s]+", part) for part in pair) for pair in pairs):
        raise ValueError(f"not a record: {text!r}")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _draw_scores(random: Random, items: int) -> Scores:
    names = random.sample(lexicon.PEOPLE, items)
    return tuple(zip(names, random.sample(range(1, 60), items), strict=True))


def _read_scores(text: str) -> Scores:
    pairs = _read_record(text)
    if not all(re.fullmatch(r"-?[0-9]+", points) for _, points in pairs):
        raise ValueError(f"not scores: {text!r}")
    return tuple((name, int(points)) for name, points in pairs)


def _draw_answer(random: Random, items: int) -> str:
    raise TypeError("an answer is never an input")


WORDS = ValueType("words", _draw_words, ", ".join, _read_words)
NUMBERS = ValueType("numbers", _draw_numbers, lambda numbers: ", ".join(map(str, numbers)), _read_numbers)
SENTENCE = ValueType("sentence", _draw_sentence, _sentence_text, _read_sentence)
PARAGRAPH = ValueType("paragraph", _draw_paragraph, _paragraph_text, _read_paragraph)
DATES = ValueType("dates", _draw_dates, lambda dates: ", ".join(day.isoformat() for day in dates), _read_dates)
RECORD = ValueType("record", _draw_record, _pairs_text, _read_record)
SCORES = ValueType("scores", _draw_scores, _pairs_text, _read_scores)
ANSWER = ValueType("answer", _draw_answer, str, str)
