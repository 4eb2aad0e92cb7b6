"""Operations on lists of words. Levels 1 and 2 keep words whole, so small models can learn them."""

import functools
import string
from random import Random

from data_pipeline.procedural import lexicon
from data_pipeline.procedural.operation import Operation, Parameter, choice, integer, maybe, new_word
from data_pipeline.procedural.values import ANSWER, NUMBERS, WORDS, Words

_edit = functools.partial(Operation, family="lists", source=WORDS, result=WORDS)
_ask = functools.partial(Operation, family="lists", source=WORDS, result=ANSWER)

LISTED = choice("word", lambda words: words)


def _others(words: Words) -> list[str]:
    present = {word.casefold() for word in words}
    return [word for word in lexicon.NOUNS if word not in present]


def _draw_letter(random: Random, words: Words) -> str | None:
    """Return a letter that occurs in the list, in lower case."""
    letter = random.choice(random.choice(words)).lower()
    return letter if letter in string.ascii_lowercase else None


LETTER = Parameter("letter", "[a-z]", str, _draw_letter)


def _letters(word: str) -> int:
    """Return the number of letters: a hyphen is none."""
    return sum(map(str.isalpha, word))


def _by_length(words: Words) -> Words:
    return tuple(sorted(words, key=_letters))


def _longest(words: Words) -> str | None:
    """Return the longest word, where one is."""
    lengths = [_letters(word) for word in words]
    return words[lengths.index(max(lengths))] if lengths.count(max(lengths)) == 1 else None


def _shortest(words: Words) -> str | None:
    lengths = [_letters(word) for word in words]
    return words[lengths.index(min(lengths))] if lengths.count(min(lengths)) == 1 else None


def _without(words: Words, word: str | None) -> Words:
    return tuple(other for other in words if other != word) if word else ()


def _unique(words: Words) -> Words:
    return tuple(dict.fromkeys(words))


def _swap(words: Words, first: int, second: int) -> Words:
    """Return two places exchanged; nothing where the list is too short to have both."""
    if len(words) < 2:
        return ()
    swapped = list(words)
    swapped[first], swapped[second] = words[second], words[first]
    return tuple(swapped)


def _replace(words: Words, word: str, new: str) -> Words:
    return tuple(new if other == word else other for other in words)


def _insert_after(words: Words, word: str, new: str) -> Words:
    """Return the new word behind the only occurrence of another."""
    if words.count(word) != 1:
        return ()
    place = words.index(word) + 1
    return (*words[:place], new, *words[place:])


def _without_middle(words: Words) -> Words:
    """Return a list of an odd number of words, three or more, without its middle one."""
    middle = len(words) // 2
    return words[:middle] + words[middle + 1 :] if len(words) > 2 and len(words) % 2 else ()


def _earlier(words: Words) -> str | None:
    """Return the first or the last word, whichever comes first in the alphabet."""
    first, last = words[0].casefold(), words[-1].casefold()
    if first == last:
        return None
    return "first" if first < last else "last"


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


MOVES = (
    _edit(
        name="reverse_words",
        category="reordering",
        level=1,
        phrasings=(
            "Reverse the order of the words.",
            "Write the list of words backwards, from the last word to the first.",
            "Put the words in the opposite order.",
            "Turn the word list around so that it starts with its last word and ends with its first.",
        ),
        compute=lambda words: words[::-1],
    ),
    _edit(
        name="remove_first_word",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the first word.",
            "Delete the first word of the list.",
            "Drop the word at the start of the list.",
            "Leave out the word that comes first.",
        ),
        compute=lambda words: words[1:],
    ),
    _edit(
        name="remove_last_word",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the last word.",
            "Delete the last word of the list.",
            "Drop the word at the end of the list.",
            "Leave out the word that comes last.",
        ),
        compute=lambda words: words[:-1],
    ),
    _edit(
        name="keep_first_two_words",
        category="selection",
        level=1,
        phrasings=(
            "Keep only the first two words.",
            "Write down only the first two words of the list.",
            "Cut the list after its second word.",
            "Give just the two words that the list begins with.",
        ),
        compute=lambda words: words[:2],
    ),
    _edit(
        name="keep_last_two_words",
        category="selection",
        level=1,
        phrasings=(
            "Keep only the last two words.",
            "Write down only the last two words of the list.",
            "Remove every word but the last two.",
            "Give just the two words that the list ends with.",
        ),
        compute=lambda words: words[-2:],
    ),
    _edit(
        name="swap_first_and_last_word",
        category="reordering",
        level=1,
        phrasings=(
            "Swap the first and the last word.",
            "Exchange the first word of the list with the last one.",
            "Let the first and the last word change places.",
            "Put the first word last and the last word first, and leave the others where they are.",
        ),
        compute=lambda words: _swap(words, 0, -1),
    ),
    _edit(
        name="swap_first_two_words",
        category="reordering",
        level=1,
        phrasings=(
            "Swap the first two words.",
            "Exchange the first word of the list with the second one.",
            "Let the first and the second word change places.",
            "Put the second word of the list before the first.",
        ),
        compute=lambda words: _swap(words, 0, 1),
    ),
    _edit(
        name="move_first_word_to_end",
        category="reordering",
        level=1,
        phrasings=(
            "Move the first word to the end.",
            "Take the first word of the list and put it at the end.",
            "Shift the first word behind all the others.",
            "Rotate the list of words by one place to the left.",
        ),
        compute=lambda words: words[1:] + words[:1],
    ),
    _edit(
        name="move_last_word_to_start",
        category="reordering",
        level=1,
        phrasings=(
            "Move the last word to the start.",
            "Take the last word of the list and put it at the start.",
            "Shift the last word before all the others.",
            "Rotate the list of words by one place to the right.",
        ),
        compute=lambda words: words[-1:] + words[:-1],
    ),
    _edit(
        name="repeat_first_word_at_end",
        category="insertion",
        level=1,
        phrasings=(
            "Repeat the first word at the end.",
            "Write the first word of the list once more at its end.",
            "Add a copy of the first word behind the last word.",
            "End the list with the word that it begins with, added once more.",
        ),
        compute=lambda words: words + words[:1],
    ),
    _edit(
        name="repeat_last_word",
        category="insertion",
        level=1,
        phrasings=(
            "Write the last word twice.",
            "Repeat the last word of the list.",
            "Add a copy of the last word at the end of the list.",
            "Double the word that the list ends with.",
        ),
        compute=lambda words: words + words[-1:],
    ),
    _edit(
        name="keep_every_other_word",
        category="selection",
        level=1,
        phrasings=(
            "Keep every other word, starting with the first.",
            "Write down the first, third, fifth word and so on.",
            "Remove the words at even positions.",
            "Skip every second word of the list.",
        ),
        compute=lambda words: words[::2],
    ),
    _edit(
        name="append_word",
        category="insertion",
        level=1,
        phrasings=(
            'Add the word "{new}" at the end.',
            'Append "{new}" to the list of words.',
            'Put the word "{new}" behind the last word.',
            'Let the list of words end with one more word, "{new}".',
        ),
        compute=lambda words, new: (*words, new),
        parameters=(new_word("new"),),
    ),
    _edit(
        name="prepend_word",
        category="insertion",
        level=1,
        phrasings=(
            'Add the word "{new}" at the start.',
            'Put "{new}" before the first word.',
            'Begin the list of words with the additional word "{new}".',
            'Write "{new}" in front of the list of words.',
        ),
        compute=lambda words, new: (new, *words),
        parameters=(new_word("new"),),
    ),
    _edit(
        name="remove_middle_word",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the middle word.",
            "Delete the word in the middle of the list.",
            "Drop the word that has as many words before it as after it.",
            "Leave out the word that stands at the center of the list.",
        ),
        compute=_without_middle,
    ),
)

SEARCHES = (
    _edit(
        name="sort_words",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the words alphabetically.",
            "Put the words in alphabetical order.",
            "Arrange the list of words from A to Z.",
            "Order the words as a dictionary would.",
        ),
        compute=lambda words: tuple(sorted(words, key=str.casefold)),
    ),
    _edit(
        name="sort_words_descending",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the words in reverse alphabetical order.",
            "Arrange the list of words from Z to A.",
            "Order the words alphabetically, but from the end of the alphabet to its start.",
            "Put the words in the opposite of alphabetical order.",
        ),
        compute=lambda words: tuple(sorted(words, key=str.casefold, reverse=True)),
    ),
    _edit(
        name="sort_words_by_length",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the words from shortest to longest, keeping words of equal length in their order.",
            "Order the words by their number of letters, the shortest first; equally long words stay in order.",
            "Arrange the words by increasing length without reordering words of the same length.",
            "Put shorter words before longer ones, and leave equally long words in the order that they have.",
        ),
        compute=_by_length,
    ),
    _edit(
        name="remove_repeated_words",
        category="deletion",
        level=2,
        phrasings=(
            "Remove repeated words, keeping the first of each.",
            "Delete every word that already occurred earlier in the list.",
            "Write each word of the list only once, where it first occurs.",
            "Drop the duplicates from the list of words.",
        ),
        compute=_unique,
    ),
    _edit(
        name="remove_word",
        category="deletion",
        level=2,
        phrasings=(
            'Remove the word "{word}".',
            'Delete "{word}" from the list of words.',
            'Drop every "{word}" from the list.',
            'Write the list of words without "{word}".',
        ),
        compute=_without,
        parameters=(LISTED,),
    ),
    _edit(
        name="replace_word",
        category="replacement",
        level=2,
        phrasings=(
            'Replace the word "{word}" with "{new}".',
            'Change "{word}" to "{new}" in the list of words.',
            'Write "{new}" instead of the word "{word}".',
            'Let the word "{new}" take the place of "{word}".',
        ),
        compute=_replace,
        parameters=(LISTED, new_word("new")),
    ),
    _edit(
        name="insert_word_after",
        category="insertion",
        level=2,
        phrasings=(
            'Insert the word "{new}" after "{word}".',
            'Put "{new}" directly behind the word "{word}".',
            'Add the word "{new}" so that it follows "{word}".',
            'Write one more word, "{new}", right after "{word}".',
        ),
        compute=_insert_after,
        parameters=(LISTED, new_word("new")),
    ),
    _edit(
        name="remove_longest_word",
        category="deletion",
        level=2,
        phrasings=(
            "Remove the longest word.",
            "Delete the word with the most letters.",
            "Drop the longest word from the list.",
            "Leave out the word that has more letters than any other.",
        ),
        compute=lambda words: _without(words, _longest(words)),
    ),
    _edit(
        name="remove_shortest_word",
        category="deletion",
        level=2,
        phrasings=(
            "Remove the shortest word.",
            "Delete the word with the fewest letters.",
            "Drop the shortest word from the list.",
            "Leave out the word that has fewer letters than any other.",
        ),
        compute=lambda words: _without(words, _shortest(words)),
    ),
    _edit(
        name="keep_longer_words",
        category="filtering",
        level=2,
        phrasings=(
            "Keep only the words with more than {count} letters.",
            "Remove the words that have {count} letters or fewer.",
            "Write down the words that are longer than {count} letters.",
            "Filter the list down to words of over {count} letters.",
        ),
        compute=lambda words, count: tuple(word for word in words if _letters(word) > count),
        parameters=(integer("count", 3, 6),),
    ),
    _edit(
        name="remove_words_with_letter",
        category="filtering",
        level=2,
        phrasings=(
            'Remove the words that contain the letter "{letter}".',
            'Keep only the words without the letter "{letter}".',
            'Delete every word in which the letter "{letter}" occurs.',
            'Filter out words spelled with the letter "{letter}".',
        ),
        compute=lambda words, letter: tuple(word for word in words if letter not in word.lower()),
        parameters=(LETTER,),
    ),
    _edit(
        name="keep_words_with_letter",
        category="filtering",
        level=2,
        phrasings=(
            'Keep only the words that contain the letter "{letter}".',
            'Write down the words in which the letter "{letter}" occurs.',
            'Remove every word without the letter "{letter}".',
            'Filter the list down to words spelled with the letter "{letter}".',
        ),
        compute=lambda words, letter: tuple(word for word in words if letter in word.lower()),
        parameters=(LETTER,),
    ),
)

SPELLINGS = (
    _edit(
        name="uppercase_words",
        category="formatting",
        level=3,
        phrasings=(
            "Write the words in capital letters.",
            "Convert every word of the list to upper case.",
            "Put the words in all caps.",
            "Change each letter of the words to a capital.",
        ),
        compute=lambda words: tuple(word.upper() for word in words),
    ),
    _edit(
        name="capitalize_words",
        category="formatting",
        level=3,
        phrasings=(
            "Capitalize the first letter of each word in the list and write its other letters small.",
            "Let every word of the list start with a capital, followed by small letters.",
            "Give each listed word a capital first letter and lower-case letters after it.",
            "Write the listed words like names: one capital at the front, the rest small.",
        ),
        compute=lambda words: tuple(word.capitalize() for word in words),
    ),
    _edit(
        name="spell_words_backwards",
        category="spelling",
        level=3,
        phrasings=(
            "Spell each word backwards.",
            "Reverse the letters of every word in the list.",
            "Write each word of the list from its last letter to its first.",
            "Mirror the spelling of every word, but leave the order of the list.",
        ),
        compute=lambda words: tuple(word[::-1] for word in words),
    ),
    _edit(
        name="first_letters",
        category="spelling",
        level=3,
        phrasings=(
            "Replace each word with its first letter.",
            "Write down only the first letter of every word in the list.",
            "Shorten each listed word to the letter it begins with.",
            "Give the initial of each word instead of the word.",
        ),
        compute=lambda words: tuple(word[0] for word in words),
    ),
    _edit(
        name="remove_vowels",
        category="spelling",
        level=3,
        phrasings=(
            "Remove the vowels (a, e, i, o, u) from each word.",
            "Delete every a, e, i, o and u in the words.",
            "Write the words without their vowels a, e, i, o and u.",
            "Leave only the letters of each word that are not a, e, i, o or u.",
        ),
        compute=lambda words: _all_or_none(tuple("".join(c for c in w if c.lower() not in "aeiou") for w in words)),
    ),
    _edit(
        name="hyphenate_neighbors",
        category="formatting",
        level=2,
        phrasings=(
            "Join each pair of neighboring words with a hyphen: the first with the second, the third with the fourth.",
            "Connect the words two by two with hyphens, from the start of the list.",
            "Write the words in hyphenated pairs; a word left over at the end stays alone.",
            "Make hyphenated compounds of words one and two, three and four, and so on.",
        ),
        compute=lambda words: tuple("-".join(words[place : place + 2]) for place in range(0, len(words), 2)),
    ),
)


def _all_or_none(words: Words) -> Words:
    """Return the words, or nothing where one of them is empty."""
    return words if all(words) else ()


CONVERSIONS = (
    Operation(
        name="word_lengths",
        family="conversions",
        category="counting",
        level=3,
        source=WORDS,
        result=NUMBERS,
        phrasings=(
            "Replace each word with the number of its letters.",
            "Count the letters of every word in the list.",
            "Write down how long each word is, in letters.",
            "Give the length of each listed word.",
        ),
        compute=lambda words: tuple(map(_letters, words)),
    ),
    Operation(
        name="alphabet_positions",
        family="conversions",
        category="spelling",
        level=3,
        source=WORDS,
        result=NUMBERS,
        phrasings=(
            "Replace each word with the position of its first letter in the alphabet.",
            "For every word, write which letter of the alphabet it begins with, as a number from 1 to 26.",
            "Give the alphabet position (a = 1) of the initial of each word.",
            "Turn each word into the number that its first letter has in the alphabet.",
        ),
        compute=lambda words: tuple(_position(word[0]) for word in words) if all(map(_spelled, words)) else (),
    ),
)


def _position(letter: str) -> int:
    return string.ascii_lowercase.index(letter.lower()) + 1


def _spelled(word: str) -> bool:
    return word[0].lower() in string.ascii_lowercase


QUESTIONS = (
    _ask(
        name="count_words",
        category="counting",
        level=2,
        phrasings=(
            "Count the words.",
            "How many words are in the list?",
            "Give the number of words in the list.",
            "Say how many words there are.",
        ),
        compute=lambda words: str(len(words)),
    ),
    _ask(
        name="has_word",
        category="yes-no question",
        level=2,
        phrasings=(
            'Does the list contain the word "{word}"? Answer yes or no.',
            'Is "{word}" one of the words? Answer yes or no.',
            'Say yes if the word "{word}" is in the list and no if it is not.',
            'Check the list for the word "{word}" and answer yes or no.',
        ),
        compute=lambda words, word: _yes(word in words),
        parameters=(maybe("word", lambda words: words, _others),),
    ),
    _ask(
        name="has_repeated_word",
        category="yes-no question",
        level=2,
        phrasings=(
            "Does any word occur more than once? Answer yes or no.",
            "Say yes if a word is repeated in the list and no if all are different.",
            "Is there a duplicate among the words? Answer yes or no.",
            "Check whether the list has the same word twice, and answer yes or no.",
        ),
        compute=lambda words: _yes(len(_unique(words)) < len(words)),
    ),
    _ask(
        name="earlier_word",
        category="comparison",
        level=2,
        phrasings=(
            "Which comes earlier in the alphabet, the first or the last word? Answer first or last.",
            "Compare the first word of the list with the last and say which of them a dictionary has earlier: "
            "answer first or last.",
            "Answer first if the first word precedes the last word alphabetically, and last if not.",
            "Say whether the first or the last word would stand earlier in an index (first or last).",
        ),
        compute=_earlier,
    ),
    _ask(
        name="word_count_parity",
        category="classification",
        level=3,
        phrasings=(
            "Is the number of words even or odd?",
            "Say even if the list has an even number of words and odd if not.",
            "Classify the length of the word list as even or odd.",
            "Count the words and answer only with even or odd.",
        ),
        compute=lambda words: "odd" if len(words) % 2 else "even",
    ),
    _ask(
        name="longest_word",
        category="comparison",
        level=2,
        phrasings=(
            "Which word is the longest?",
            "Answer with the word that has the most letters.",
            "Name the longest word of the list.",
            "Say which of the words is spelled with the most letters.",
        ),
        compute=_longest,
    ),
)

OPERATIONS = (*MOVES, *SEARCHES, *SPELLINGS, *CONVERSIONS, *QUESTIONS)
