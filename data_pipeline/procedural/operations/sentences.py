"""Operations on one sentence."""

import functools

from data_pipeline.procedural import lexicon
from data_pipeline.procedural.operation import Operation, choice, integer, maybe, new_word
from data_pipeline.procedural.values import ANSWER, NUMBERS, SENTENCE, WORDS, Sentence

_edit = functools.partial(Operation, family="sentences", source=SENTENCE, result=SENTENCE)
_ask = functools.partial(Operation, family="sentences", source=SENTENCE, result=ANSWER)
_list = functools.partial(Operation, family="conversions", source=SENTENCE, result=WORDS)

OPENINGS = ("However", "Yesterday", "Perhaps", "Luckily", "Finally", "Meanwhile")


def _nouns(sentence: Sentence) -> list[str]:
    """Return the nouns that a sentence has once."""
    return [word for word in sentence.words if word in lexicon.NOUNS and sentence.words.count(word) == 1]


def _absent_nouns(sentence: Sentence) -> list[str]:
    present = {word.casefold() for word in sentence.words}
    return [word for word in lexicon.NOUNS if word not in present]


def _single_words(sentence: Sentence) -> list[str]:
    """Return the words behind the first that a sentence has once, in capitals or not."""
    lowered = [word.casefold() for word in sentence.words]
    return [word for word in sentence.words[1:] if word.isalpha() and lowered.count(word.casefold()) == 1]


def _rewrite(sentence: Sentence, words: list[str] | tuple[str, ...]) -> Sentence | None:
    """Return the sentence with other words; nothing where there are none, or where a comma would come last."""
    return Sentence(tuple(words), sentence.mark) if words and not words[-1].endswith(",") else None


def _substitute(sentence: Sentence, word: str, new: str) -> Sentence | None:
    return _rewrite(sentence, [new if other == word else other for other in sentence.words])


def _drop(sentence: Sentence, word: str) -> Sentence | None:
    return _rewrite(sentence, [other for other in sentence.words if other.casefold() != word.casefold()])


def _open_with(sentence: Sentence, opening: str) -> Sentence | None:
    """Put an adverb and a comma in front, and begin the sentence's first word, if not in capitals, in lower case."""
    first, *rest = sentence.words
    if first.isupper():
        return None
    return Sentence((f"{opening},", first[0].lower() + first[1:], *rest), sentence.mark)


def _without_articles(sentence: Sentence) -> Sentence | None:
    return _rewrite(sentence, [word for word in sentence.words if word.lower() != "the"])


def _plain(word: str) -> str:
    return word.replace(",", "")


def _all_words(sentence: Sentence) -> tuple[str, ...]:
    return tuple(_plain(word) for word in sentence.words)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


EDITS = (
    _edit(
        name="exclaim",
        category="formatting",
        level=1,
        phrasings=(
            "End the sentence with an exclamation mark.",
            "Make the sentence end with ! instead of the mark that it has.",
            "Turn the final mark of the sentence into an exclamation mark.",
            "Write the sentence with ! at its end.",
        ),
        compute=lambda sentence: sentence._replace(mark="!"),
    ),
    _edit(
        name="end_with_question_mark",
        category="formatting",
        level=1,
        phrasings=(
            "End the sentence with a question mark.",
            "Make the sentence end with ? instead of the mark that it has.",
            "Turn the final mark of the sentence into a question mark.",
            "Write the sentence with ? at its end.",
        ),
        compute=lambda sentence: sentence._replace(mark="?"),
    ),
    _edit(
        name="open_sentence_with",
        category="insertion",
        level=1,
        phrasings=(
            'Begin the sentence with "{opening}" and a comma, and let its old first word start small.',
            'Put "{opening}," in front of the sentence and continue with a small letter.',
            'Add the opening "{opening}," to the sentence, whose first letter becomes small.',
            'Let the sentence start with "{opening}," and then go on in lower case at its former first word.',
        ),
        compute=_open_with,
        parameters=(choice("opening", lambda sentence: OPENINGS, "[A-Za-z]+"),),
    ),
    _edit(
        name="substitute_in_sentence",
        category="replacement",
        level=2,
        phrasings=(
            'Replace "{word}" with "{new}" in the sentence.',
            'Change the word "{word}" of the sentence to "{new}".',
            'Rewrite the sentence with "{new}" where it says "{word}".',
            'Let the sentence speak of "{new}" instead of "{word}".',
        ),
        compute=_substitute,
        parameters=(choice("word", _nouns), new_word("new")),
    ),
    _edit(
        name="drop_from_sentence",
        category="deletion",
        level=2,
        phrasings=(
            'Remove the word "{word}" from the sentence.',
            'Delete "{word}" wherever the sentence has it.',
            'Rewrite the sentence without the word "{word}".',
            'Strike "{word}" out of the sentence.',
        ),
        compute=_drop,
        parameters=(choice("word", _single_words),),
    ),
    _edit(
        name="remove_articles",
        category="deletion",
        level=2,
        phrasings=(
            'Remove every "the" from the sentence.',
            "Delete the articles of the sentence (the or The).",
            'Write the sentence without the word "the", large or small.',
            'Leave each "the" out of the sentence.',
        ),
        compute=_without_articles,
    ),
    _edit(
        name="reverse_sentence",
        category="reordering",
        level=1,
        phrasings=(
            "Reverse the word order of the sentence, and keep its final mark at the end.",
            "Write the words of the sentence backwards, from last to first, before the final mark.",
            "Turn the sentence around word by word; its final mark stays where it is.",
            "Read the sentence from its last word to its first and end with the same mark.",
        ),
        compute=lambda sentence: _rewrite(sentence, sentence.words[::-1]),
    ),
    _edit(
        name="cut_first_word",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the first word of the sentence.",
            "Delete the word that the sentence starts with.",
            "Cut the sentence's first word off.",
            "Write the sentence from its second word on.",
        ),
        compute=lambda sentence: _rewrite(sentence, sentence.words[1:]),
    ),
    _edit(
        name="cut_last_word",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the last word of the sentence, not its final mark.",
            "Delete the word before the sentence's final mark.",
            "Cut the sentence's last word off and keep the final mark.",
            "Write the sentence up to its last word but one, with the same final mark.",
        ),
        compute=lambda sentence: _rewrite(sentence, sentence.words[:-1]),
    ),
    _edit(
        name="uppercase_sentence",
        category="formatting",
        level=3,
        phrasings=(
            "Write the sentence in capital letters.",
            "Convert the sentence to upper case.",
            "Put the whole sentence in all caps.",
            "Change each letter of the sentence to a capital.",
        ),
        compute=lambda sentence: _rewrite(sentence, [word.upper() for word in sentence.words]),
    ),
    _edit(
        name="lowercase_sentence",
        category="formatting",
        level=3,
        phrasings=(
            "Write the sentence in lower case.",
            "Convert the sentence to small letters.",
            "Put the whole sentence in lower-case letters.",
            "Change each capital letter of the sentence to a small one.",
        ),
        compute=lambda sentence: _rewrite(sentence, [word.lower() for word in sentence.words]),
    ),
    _edit(
        name="title_case_sentence",
        category="formatting",
        level=3,
        phrasings=(
            "Write the sentence in title case: each word a capital followed by small letters.",
            "Capitalize the first letter of every word of the sentence and make the other letters small.",
            "Turn the sentence into a title in which each word has a capital, then small letters.",
            "Let all words of the sentence start with a capital and go on in lower case.",
        ),
        compute=lambda sentence: _rewrite(sentence, [word.capitalize() for word in sentence.words]),
    ),
    _edit(
        name="double_word_in_sentence",
        category="insertion",
        level=2,
        phrasings=(
            'Write the word "{word}" of the sentence twice in a row.',
            'Repeat "{word}" directly after itself in the sentence.',
            'Let the sentence stutter at "{word}", so that it stands there two times.',
            'Double the word "{word}" where the sentence has it.',
        ),
        compute=lambda sentence, word: _double(sentence, word),
        parameters=(choice("word", _nouns),),
    ),
)


def _double(sentence: Sentence, word: str) -> Sentence | None:
    """Return the sentence with a word, which it has once, written twice."""
    if sentence.words.count(word) != 1:
        return None
    place = sentence.words.index(word)
    return _rewrite(sentence, (*sentence.words[:place], word, *sentence.words[place:]))


CONVERSIONS = (
    _list(
        name="list_sentence_words",
        category="conversion",
        level=1,
        phrasings=(
            "List the words of the sentence, separated by commas.",
            "Split the sentence into a list of its words without punctuation.",
            "Turn the sentence into a comma-separated list of words.",
            "Write down one by one, with commas between, the words that make up the sentence.",
        ),
        compute=_all_words,
    ),
    _list(
        name="list_long_sentence_words",
        category="extraction",
        level=2,
        phrasings=(
            "List the words of the sentence that have more than {count} letters, separated by commas.",
            "Extract the sentence's words of over {count} letters as a list with commas.",
            "Write down, with commas between, the words of the sentence longer than {count} letters.",
            "Pick all words with more than {count} letters out of the sentence and list them with commas.",
        ),
        compute=lambda sentence, count: tuple(word for word in _all_words(sentence) if len(word) > count),
        parameters=(integer("count", 3, 6),),
    ),
    _list(
        name="list_sentence_initials",
        category="spelling",
        level=3,
        phrasings=(
            "List the first letters of the words of the sentence, separated by commas.",
            "Write down the initial of every word in the sentence, with commas between.",
            "Extract the letter that each word of the sentence begins with, as a list with commas.",
            "Go through the sentence and note each word's first letter, with commas between the letters.",
        ),
        compute=lambda sentence: tuple(word[0] for word in sentence.words),
    ),
    Operation(
        name="sentence_word_lengths",
        family="conversions",
        category="counting",
        level=3,
        source=SENTENCE,
        result=NUMBERS,
        phrasings=(
            "Write the number of letters of each word of the sentence, separated by commas.",
            "Count the letters in every word of the sentence and list the counts with commas.",
            "Turn the sentence into a comma-separated list of its words' lengths.",
            "For each word of the sentence, note how many letters it has, with commas between the numbers.",
        ),
        compute=lambda sentence: tuple(sum(map(str.isalpha, word)) for word in sentence.words),
    ),
)

QUESTIONS = (
    _ask(
        name="count_sentence_words",
        category="counting",
        level=2,
        phrasings=(
            "How many words does the sentence have?",
            "Count the words of the sentence.",
            "Give the sentence's number of words.",
            "Say how many words the sentence is long.",
        ),
        compute=lambda sentence: str(len(sentence.words)),
    ),
    _ask(
        name="sentence_has_word",
        category="yes-no question",
        level=2,
        phrasings=(
            'Does the sentence contain the word "{word}"? Answer yes or no.',
            'Is "{word}" a word of the sentence? Answer yes or no.',
            'Say yes if the sentence has the word "{word}" and no if it has not.',
            'Check the sentence for the word "{word}" and answer yes or no.',
        ),
        compute=lambda sentence, word: _yes(word in _all_words(sentence)),
        parameters=(maybe("word", _nouns, _absent_nouns),),
    ),
    _ask(
        name="sentence_mark",
        category="classification",
        level=1,
        phrasings=(
            "Does the sentence end with a period, an exclamation mark or a question mark? "
            "Answer period, exclamation or question.",
            "Classify the end of the sentence as period, exclamation or question.",
            "Name the final mark of the sentence: period, exclamation or question.",
            "Say with which mark the sentence closes (period, exclamation or question).",
        ),
        compute=lambda sentence: {".": "period", "!": "exclamation", "?": "question"}[sentence.mark],
    ),
    _ask(
        name="last_sentence_word",
        category="extraction",
        level=1,
        phrasings=(
            "What is the last word of the sentence?",
            "Answer with the word that the sentence ends with, without punctuation.",
            "Give only the final word of the sentence, without its mark.",
            "Say which word stands right before the sentence's final mark.",
        ),
        compute=lambda sentence: _plain(sentence.words[-1]),
    ),
)

OPERATIONS = (*EDITS, *CONVERSIONS, *QUESTIONS)
