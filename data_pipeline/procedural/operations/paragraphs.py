"""Operations on paragraphs of several sentences."""

import functools

from data_pipeline.procedural import lexicon
from data_pipeline.procedural.operation import Operation, choice, maybe
from data_pipeline.procedural.values import ANSWER, NUMBERS, PARAGRAPH, SENTENCE, Paragraph, Sentence

_edit = functools.partial(Operation, family="paragraphs", source=PARAGRAPH, result=PARAGRAPH)
_ask = functools.partial(Operation, family="paragraphs", source=PARAGRAPH, result=ANSWER)
_pick = functools.partial(Operation, family="conversions", source=PARAGRAPH, result=SENTENCE)


def _nouns(paragraph: Paragraph) -> list[str]:
    return [word for sentence in paragraph for word in sentence.words if word in lexicon.NOUNS]


def _absent_nouns(paragraph: Paragraph) -> list[str]:
    present = set(_nouns(paragraph))
    return [word for word in lexicon.NOUNS if word not in present]


def _several(sentences: tuple[Sentence, ...]) -> Paragraph:
    """Return the sentences where they are at least two, as a paragraph has."""
    return sentences if len(sentences) > 1 else ()


def _length(sentence: Sentence) -> int:
    return len(sentence.words)


def _swap_ends(paragraph: Paragraph) -> Paragraph:
    return (paragraph[-1], *paragraph[1:-1], paragraph[0])


def _extreme(paragraph: Paragraph, sign: int) -> Sentence | None:
    """Return the sentence of most words (sign 1) or fewest (sign -1), where one is."""
    lengths = [sign * _length(sentence) for sentence in paragraph]
    return paragraph[lengths.index(max(lengths))] if lengths.count(max(lengths)) == 1 else None


def _with_word(paragraph: Paragraph, word: str) -> tuple[Sentence, ...]:
    return tuple(sentence for sentence in paragraph if word in sentence.words)


def _without_word(paragraph: Paragraph, word: str) -> Paragraph:
    return _several(tuple(sentence for sentence in paragraph if word not in sentence.words))


EDITS = (
    _edit(
        name="reverse_paragraph",
        category="reordering",
        level=1,
        phrasings=(
            "Reverse the order of the sentences.",
            "Write the sentences from the last to the first.",
            "Put the sentences of the paragraph in the opposite order.",
            "Turn the paragraph around, sentence by sentence.",
        ),
        compute=lambda paragraph: paragraph[::-1],
    ),
    _edit(
        name="remove_first_sentence",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the first sentence.",
            "Delete the sentence that the paragraph begins with.",
            "Drop the paragraph's opening sentence.",
            "Write the paragraph from its second sentence on.",
        ),
        compute=lambda paragraph: _several(paragraph[1:]),
    ),
    _edit(
        name="remove_last_sentence",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the last sentence.",
            "Delete the sentence that the paragraph ends with.",
            "Drop the paragraph's closing sentence.",
            "Write the paragraph without the sentence that comes last.",
        ),
        compute=lambda paragraph: _several(paragraph[:-1]),
    ),
    _edit(
        name="swap_end_sentences",
        category="reordering",
        level=1,
        phrasings=(
            "Swap the first and the last sentence.",
            "Exchange the first sentence of the paragraph with the last one.",
            "Let the opening and the closing sentence change places.",
            "Put the paragraph's first sentence last and its last sentence first; leave the rest in place.",
        ),
        compute=_swap_ends,
    ),
    _edit(
        name="rotate_sentences",
        category="reordering",
        level=1,
        phrasings=(
            "Move the first sentence to the end.",
            "Take the paragraph's first sentence and put it behind the others.",
            "Let the opening sentence come last instead.",
            "Shift the sentence at the start of the paragraph to its end.",
        ),
        compute=lambda paragraph: paragraph[1:] + paragraph[:1],
    ),
    _edit(
        name="sort_sentences_by_length",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the sentences by their number of words, the shortest first; equally long ones stay in order.",
            "Put sentences of fewer words before those of more, keeping equally long sentences in order.",
            "Order the paragraph from the sentence of fewest words to that of most, without reordering equal ones.",
            "Arrange the sentences by increasing word count and leave those of equal count in the order they have.",
        ),
        compute=lambda paragraph: tuple(sorted(paragraph, key=_length)),
    ),
    _edit(
        name="remove_sentences_with_word",
        category="filtering",
        level=2,
        phrasings=(
            'Remove the sentences that contain the word "{word}".',
            'Delete every sentence in which "{word}" occurs.',
            'Keep only the sentences without the word "{word}".',
            'Filter out the sentences that speak of "{word}".',
        ),
        compute=_without_word,
        parameters=(choice("word", _nouns),),
    ),
    _edit(
        name="end_all_with_exclamation",
        category="formatting",
        level=1,
        phrasings=(
            "End every sentence of the paragraph with an exclamation mark.",
            "Turn the final marks of all the sentences into exclamation marks.",
            "Make each of the sentences end with ! instead of the mark that it has.",
            "Write the sentences with ! at the end of each.",
        ),
        compute=lambda paragraph: tuple(sentence._replace(mark="!") for sentence in paragraph),
    ),
    _edit(
        name="repeat_first_sentence_at_end",
        category="insertion",
        level=1,
        phrasings=(
            "Repeat the first sentence at the end of the paragraph.",
            "Write the paragraph's first sentence once more behind the last.",
            "Add a copy of the opening sentence as the closing one.",
            "Close the paragraph with one more sentence, the one that it begins with.",
        ),
        compute=lambda paragraph: paragraph + paragraph[:1],
    ),
)

CONVERSIONS = (
    _pick(
        name="first_sentence",
        category="extraction",
        level=1,
        phrasings=(
            "Keep only the first sentence.",
            "Write down just the sentence that the paragraph begins with.",
            "Extract the paragraph's opening sentence.",
            "Cut the paragraph down to its first sentence.",
        ),
        compute=lambda paragraph: paragraph[0],
    ),
    _pick(
        name="last_sentence",
        category="extraction",
        level=1,
        phrasings=(
            "Keep only the last sentence.",
            "Write down just the sentence that the paragraph ends with.",
            "Extract the paragraph's closing sentence.",
            "Cut the paragraph down to its last sentence.",
        ),
        compute=lambda paragraph: paragraph[-1],
    ),
    _pick(
        name="longest_sentence",
        category="extraction",
        level=2,
        phrasings=(
            "Keep only the sentence with the most words.",
            "Write down just the longest sentence, counted in words.",
            "Extract the sentence that has more words than any other.",
            "Cut the paragraph down to its longest sentence by number of words.",
        ),
        compute=lambda paragraph: _extreme(paragraph, 1),
    ),
    _pick(
        name="shortest_sentence",
        category="extraction",
        level=2,
        phrasings=(
            "Keep only the sentence with the fewest words.",
            "Write down just the shortest sentence, counted in words.",
            "Extract the sentence that has fewer words than any other.",
            "Cut the paragraph down to its shortest sentence by number of words.",
        ),
        compute=lambda paragraph: _extreme(paragraph, -1),
    ),
    Operation(
        name="sentence_lengths",
        family="conversions",
        category="counting",
        level=3,
        source=PARAGRAPH,
        result=NUMBERS,
        phrasings=(
            "Write the number of words of each sentence, separated by commas.",
            "Count the words in every sentence and list the counts with commas.",
            "Turn the paragraph into a comma-separated list of its sentences' word counts.",
            "For each of the sentences, note how many words it has, with commas between the numbers.",
        ),
        compute=lambda paragraph: tuple(map(_length, paragraph)),
    ),
)

QUESTIONS = (
    _ask(
        name="count_sentences",
        category="counting",
        level=2,
        phrasings=(
            "How many sentences are there?",
            "Count the sentences.",
            "Give the number of sentences in the paragraph.",
            "Say how many sentences the paragraph has.",
        ),
        compute=lambda paragraph: str(len(paragraph)),
    ),
    _ask(
        name="paragraph_has_word",
        category="yes-no question",
        level=2,
        phrasings=(
            'Does the paragraph contain the word "{word}"? Answer yes or no.',
            'Is "{word}" a word of the paragraph? Answer yes or no.',
            'Say yes if any of the sentences has the word "{word}" and no if none has.',
            'Check the paragraph for the word "{word}" and answer yes or no.',
        ),
        compute=lambda paragraph, word: "yes" if _with_word(paragraph, word) else "no",
        parameters=(maybe("word", _nouns, _absent_nouns),),
    ),
    _ask(
        name="count_exclamations",
        category="counting",
        level=2,
        phrasings=(
            "How many of the sentences end with an exclamation mark?",
            "Count the sentences that end with !.",
            "Give the paragraph's number of exclamation marks.",
            "Say how many sentences of the paragraph are exclamations.",
        ),
        compute=lambda paragraph: str(sum(sentence.mark == "!" for sentence in paragraph)),
    ),
)

OPERATIONS = (*EDITS, *CONVERSIONS, *QUESTIONS)
