"""The operations: hand-computed outputs for each, and what holds for all."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.procedural.catalogue import OPERATIONS, by_name, families, numbers, table, understand
from data_pipeline.procedural.operation import Operation
from data_pipeline.procedural.verification import execute

WORDS = "stone, fig, lamp, river, fig"
FOUR = "stone, lemon, fig, kettle"
NUMBERS = "7, 12, -3, 20, 5"
SENTENCE = "The old doctor saw a bird near the lake."
SHORT = "The bird saw the lake!"
PARAGRAPH = "The bird saw the lake! The old doctor left. The wolf found the quiet lake near the tower."
DATES = "2021-03-14, 2020-02-10, 2024-12-31"
RECORD = "name: Ada; city: Oslo; job: pilot"
SCORES = "Omar: 31; Ben: 7; Zoe: 12"

CASES = [
    ("Reverse the order of the words.", WORDS, "fig, river, lamp, fig, stone"),
    ("Remove the first word.", WORDS, "fig, lamp, river, fig"),
    ("Remove the last word.", WORDS, "stone, fig, lamp, river"),
    ("Keep only the first two words.", WORDS, "stone, fig"),
    ("Keep only the last two words.", WORDS, "river, fig"),
    ("Swap the first and the last word.", FOUR, "kettle, lemon, fig, stone"),
    ("Swap the first two words.", FOUR, "lemon, stone, fig, kettle"),
    ("Move the first word to the end.", FOUR, "lemon, fig, kettle, stone"),
    ("Move the last word to the start.", FOUR, "kettle, stone, lemon, fig"),
    ("Repeat the first word at the end.", FOUR, "stone, lemon, fig, kettle, stone"),
    ("Write the last word twice.", FOUR, "stone, lemon, fig, kettle, kettle"),
    ("Keep every other word, starting with the first.", WORDS, "stone, lamp, fig"),
    ('Add the word "queen" at the end.', FOUR, "stone, lemon, fig, kettle, queen"),
    ('Add the word "queen" at the start.', FOUR, "queen, stone, lemon, fig, kettle"),
    ("Remove the middle word.", WORDS, "stone, fig, river, fig"),
    ("Remove the middle word.", FOUR, None),
    ("Sort the words alphabetically.", WORDS, "fig, fig, lamp, river, stone"),
    ("Sort the words in reverse alphabetical order.", WORDS, "stone, river, lamp, fig, fig"),
    (
        "Sort the words from shortest to longest, keeping words of equal length in their order.",
        "stone, lemon, fig, forty-two",
        "fig, stone, lemon, forty-two",
    ),
    ("Remove repeated words, keeping the first of each.", WORDS, "stone, fig, lamp, river"),
    ('Remove the word "fig".', WORDS, "stone, lamp, river"),
    ('Replace the word "fig" with "queen".', WORDS, "stone, queen, lamp, river, queen"),
    ('Insert the word "queen" after "lemon".', FOUR, "stone, lemon, queen, fig, kettle"),
    ('Insert the word "queen" after "fig".', WORDS, None),
    ("Remove the longest word.", FOUR, "stone, lemon, fig"),
    ("Remove the longest word.", WORDS, None),
    ("Remove the shortest word.", FOUR, "stone, lemon, kettle"),
    ("Keep only the words with more than 4 letters.", WORDS, "stone, river"),
    ("Keep only the words with more than 9 letters.", WORDS, None),
    ('Remove the words that contain the letter "e".', WORDS, "fig, lamp, fig"),
    ('Keep only the words that contain the letter "e".', WORDS, "stone, river"),
    ("Write the words in capital letters.", FOUR, "STONE, LEMON, FIG, KETTLE"),
    (
        "Capitalize the first letter of each word in the list and write its other letters small.",
        "STONE, fig",
        "Stone, Fig",
    ),
    ("Spell each word backwards.", FOUR, "enots, nomel, gif, elttek"),
    ("Replace each word with its first letter.", FOUR, "s, l, f, k"),
    ("Remove the vowels (a, e, i, o, u) from each word.", FOUR, "stn, lmn, fg, kttl"),
    ("Remove the vowels (a, e, i, o, u) from each word.", "fig, a", None),
    (
        "Join each pair of neighboring words with a hyphen: the first with the second, the third with the fourth.",
        WORDS,
        "stone-fig, lamp-river, fig",
    ),
    ("Replace each word with the number of its letters.", "stone, forty-two", "5, 8"),
    ("Replace each word with the position of its first letter in the alphabet.", "apple, Bird, zebra", "1, 2, 26"),
    ("Count the words.", WORDS, "5"),
    ('Does the list contain the word "lamp"? Answer yes or no.', WORDS, "yes"),
    ('Does the list contain the word "lam"? Answer yes or no.', WORDS, "no"),
    ("Does any word occur more than once? Answer yes or no.", WORDS, "yes"),
    ("Does any word occur more than once? Answer yes or no.", FOUR, "no"),
    ("Which comes earlier in the alphabet, the first or the last word? Answer first or last.", WORDS, "last"),
    ("Is the number of words even or odd?", WORDS, "odd"),
    ("Which word is the longest?", FOUR, "kettle"),
    ("Reverse the order of the numbers.", NUMBERS, "5, 20, -3, 12, 7"),
    ("Remove the first number.", NUMBERS, "12, -3, 20, 5"),
    ("Add the number 9 at the end.", NUMBERS, "7, 12, -3, 20, 5, 9"),
    ("Move the first number to the end.", NUMBERS, "12, -3, 20, 5, 7"),
    ("Sort the numbers from smallest to largest.", NUMBERS, "-3, 5, 7, 12, 20"),
    ("Sort the numbers from largest to smallest.", NUMBERS, "20, 12, 7, 5, -3"),
    ("Keep only the even numbers.", NUMBERS, "12, 20"),
    ("Keep only the odd numbers.", NUMBERS, "7, -3, 5"),
    ("Keep only the numbers greater than 5.", NUMBERS, "7, 12, 20"),
    ("Keep only the numbers less than 5.", NUMBERS, "-3"),
    ("Remove the largest number.", NUMBERS, "7, 12, -3, 5"),
    ("Remove the largest number.", "4, 9, 9", None),
    ("Remove the smallest number.", NUMBERS, "7, 12, 20, 5"),
    ("Replace the number 12 with 30.", NUMBERS, "7, 30, -3, 20, 5"),
    ("Add 4 to each number.", NUMBERS, "11, 16, 1, 24, 9"),
    ("Subtract 4 from each number.", NUMBERS, "3, 8, -7, 16, 1"),
    ("Multiply each number by 3.", NUMBERS, "21, 36, -9, 60, 15"),
    ("Square each number.", NUMBERS, "49, 144, 9, 400, 25"),
    ("Square each number.", "5, 101", None),
    ("Replace each number with its remainder after division by 5, never a negative one.", NUMBERS, "2, 2, 2, 0, 0"),
    ("Write the running totals of the numbers.", NUMBERS, "7, 19, 16, 36, 41"),
    (
        "Write the differences between neighboring numbers, each number subtracted from the next.",
        NUMBERS,
        "5, -15, 23, -15",
    ),
    ("Change the sign of each number.", NUMBERS, "-7, -12, 3, -20, -5"),
    ("Write the numbers in words.", "0, 13, 20, 42, 99", "zero, thirteen, twenty, forty-two, ninety-nine"),
    ("Write the numbers in words.", NUMBERS, None),
    ("Write even or odd for each number.", NUMBERS, "odd, even, odd, even, odd"),
    ("What is the sum of the numbers?", NUMBERS, "41"),
    ("What is the largest number?", NUMBERS, "20"),
    ("What is the smallest number?", NUMBERS, "-3"),
    ("How many of the numbers are even?", NUMBERS, "2"),
    ("What is the difference between the largest and the smallest number?", NUMBERS, "23"),
    ("Is the sum of the numbers even? Answer yes or no.", NUMBERS, "no"),
    ("Which is larger, the first or the last number? Answer first, last or equal.", NUMBERS, "first"),
    ("Which is larger, the first or the last number? Answer first, last or equal.", "4, 9, 4", "equal"),
    ("What is the median of the numbers?", NUMBERS, "7"),
    ("What is the median of the numbers?", "1, 2", None),
    ("End the sentence with an exclamation mark.", SENTENCE, "The old doctor saw a bird near the lake!"),
    ("End the sentence with a question mark.", SENTENCE, "The old doctor saw a bird near the lake?"),
    (
        'Begin the sentence with "However" and a comma, and let its old first word start small.',
        SHORT,
        "However, the bird saw the lake!",
    ),
    ('Replace "bird" with "wolf" in the sentence.', SHORT, "The wolf saw the lake!"),
    ('Remove the word "old" from the sentence.', SENTENCE, "The doctor saw a bird near the lake."),
    ('Remove every "the" from the sentence.', SHORT, "bird saw lake!"),
    (
        "Reverse the word order of the sentence, and keep its final mark at the end.",
        SHORT,
        "lake the saw bird The!",
    ),
    ("Reverse the word order of the sentence, and keep its final mark at the end.", "However, it rains.", None),
    ("Remove the first word of the sentence.", SHORT, "bird saw the lake!"),
    ("Remove the last word of the sentence, not its final mark.", SHORT, "The bird saw the!"),
    ("Write the sentence in capital letters.", SHORT, "THE BIRD SAW THE LAKE!"),
    ("Write the sentence in lower case.", SHORT, "the bird saw the lake!"),
    (
        "Write the sentence in title case: each word a capital followed by small letters.",
        "the BIRD saw it.",
        "The Bird Saw It.",
    ),
    ('Write the word "bird" of the sentence twice in a row.', SHORT, "The bird bird saw the lake!"),
    ("List the words of the sentence, separated by commas.", "However, it rains.", "However, it, rains"),
    (
        "List the words of the sentence that have more than 3 letters, separated by commas.",
        SENTENCE,
        "doctor, bird, near, lake",
    ),
    ("List the first letters of the words of the sentence, separated by commas.", SHORT, "T, b, s, t, l"),
    ("Write the number of letters of each word of the sentence, separated by commas.", "However, it rains.", "7, 2, 5"),
    ("How many words does the sentence have?", SENTENCE, "9"),
    ('Does the sentence contain the word "lake"? Answer yes or no.', SENTENCE, "yes"),
    ('Does the sentence contain the word "wolf"? Answer yes or no.', SENTENCE, "no"),
    (
        "Does the sentence end with a period, an exclamation mark or a question mark? "
        "Answer period, exclamation or question.",
        SHORT,
        "exclamation",
    ),
    ("What is the last word of the sentence?", SENTENCE, "lake"),
    (
        "Reverse the order of the sentences.",
        PARAGRAPH,
        "The wolf found the quiet lake near the tower. The old doctor left. The bird saw the lake!",
    ),
    (
        "Remove the first sentence.",
        PARAGRAPH,
        "The old doctor left. The wolf found the quiet lake near the tower.",
    ),
    ("Remove the first sentence.", "It rains. It snows.", None),
    ("Remove the last sentence.", PARAGRAPH, "The bird saw the lake! The old doctor left."),
    ("Swap the first and the last sentence.", "It rains. I go. You eat!", "You eat! I go. It rains."),
    ("Move the first sentence to the end.", "It rains. I go. You eat!", "I go. You eat! It rains."),
    (
        "Sort the sentences by their number of words, the shortest first; equally long ones stay in order.",
        "It rains now. I go. You eat it. Birds fly!",
        "I go. Birds fly! It rains now. You eat it.",
    ),
    (
        'Remove the sentences that contain the word "doctor".',
        PARAGRAPH,
        "The bird saw the lake! The wolf found the quiet lake near the tower.",
    ),
    (
        "End every sentence of the paragraph with an exclamation mark.",
        "It rains. I go? You eat!",
        "It rains! I go! You eat!",
    ),
    ("Repeat the first sentence at the end of the paragraph.", "It rains. I go!", "It rains. I go! It rains."),
    ("Keep only the first sentence.", PARAGRAPH, "The bird saw the lake!"),
    ("Keep only the last sentence.", PARAGRAPH, "The wolf found the quiet lake near the tower."),
    ("Keep only the sentence with the most words.", PARAGRAPH, "The wolf found the quiet lake near the tower."),
    ("Keep only the sentence with the fewest words.", PARAGRAPH, "The old doctor left."),
    ("Write the number of words of each sentence, separated by commas.", PARAGRAPH, "5, 4, 9"),
    ("How many sentences are there?", PARAGRAPH, "3"),
    ('Does the paragraph contain the word "wolf"? Answer yes or no.', PARAGRAPH, "yes"),
    ('Does the paragraph contain the word "zebra"? Answer yes or no.', PARAGRAPH, "no"),
    ("How many of the sentences end with an exclamation mark?", PARAGRAPH, "1"),
    ("Sort the dates from earliest to latest.", DATES, "2020-02-10, 2021-03-14, 2024-12-31"),
    ("Sort the dates from latest to earliest.", DATES, "2024-12-31, 2021-03-14, 2020-02-10"),
    ("Reverse the order in which the dates are listed.", DATES, "2024-12-31, 2020-02-10, 2021-03-14"),
    ("Remove the date that is listed first.", DATES, "2020-02-10, 2024-12-31"),
    ("Remove the earliest date.", DATES, "2021-03-14, 2024-12-31"),
    ("Remove the latest date.", DATES, "2021-03-14, 2020-02-10"),
    ("Move each date 20 days later.", DATES, "2021-04-03, 2020-03-01, 2025-01-20"),
    ("Move each date 2 weeks earlier.", DATES, "2021-02-28, 2020-01-27, 2024-12-17"),
    ("Move each date 3 years later, to the same day and month.", DATES, "2024-03-14, 2023-02-10, 2027-12-31"),
    ("Move each date 3 years later, to the same day and month.", "2020-02-29", None),
    ("Replace each date with the first day of its month.", DATES, "2021-03-01, 2020-02-01, 2024-12-01"),
    ("Replace each date with the last day of its month.", DATES, "2021-03-31, 2020-02-29, 2024-12-31"),
    ("Remove the dates that fall on a Saturday or Sunday.", DATES, "2020-02-10, 2024-12-31"),
    ("Keep only the dates after the year 2020.", DATES, "2021-03-14, 2024-12-31"),
    ("Replace each date with its day of the week.", DATES, "Sunday, Monday, Tuesday"),
    ("Replace each date with the name of its month.", DATES, "March, February, December"),
    ("Replace each date with its year.", DATES, "2021, 2020, 2024"),
    ("Replace each date with its day of the month, as a number.", "2021-03-04, 2020-02-10", "4, 10"),
    ("On which day of the week does the earliest date fall?", DATES, "Monday"),
    ("How many days lie between the earliest and the latest date?", "2020-03-01, 2020-02-01", "29"),
    ("Is any of the dates in a leap year? Answer yes or no.", DATES, "yes"),
    ("Is any of the dates in a leap year? Answer yes or no.", "2021-03-14, 2100-01-01", "no"),
    ("How many of the dates fall on a weekend?", DATES, "1"),
    ("Which date is the latest?", DATES, "2024-12-31"),
    ("Sort the fields of the record by their names, alphabetically.", RECORD, "city: Oslo; job: pilot; name: Ada"),
    (
        "Sort the fields of the record by their values, alphabetically.",
        "job: pilot; city: Oslo; name: Ada",
        "name: Ada; city: Oslo; job: pilot",
    ),
    ("Reverse the order of the fields of the record.", RECORD, "job: pilot; city: Oslo; name: Ada"),
    ('Remove the field "city" from the record.', RECORD, "name: Ada; job: pilot"),
    ("Keep only the first two fields of the record.", RECORD, "name: Ada; city: Oslo"),
    ("Remove the last field of the record.", RECORD, "name: Ada; city: Oslo"),
    ('Rename the field "city" to "month".', RECORD, "name: Ada; month: Oslo; job: pilot"),
    ('Rename the field "city" to "job".', RECORD, None),
    ('Set the field "city" to "Lima".', RECORD, "name: Ada; city: Lima; job: pilot"),
    ('Set the field "meal" to "rice".', RECORD, None),
    (
        'Add a field "meal" with the value "rice" at the end of the record.',
        RECORD,
        "name: Ada; city: Oslo; job: pilot; meal: rice",
    ),
    ('Move the field "job" to the front of the record.', RECORD, "job: pilot; name: Ada; city: Oslo"),
    ("Write the values of the record in capital letters.", RECORD, "name: ADA; city: OSLO; job: PILOT"),
    ("Capitalize the first letter of each field name.", RECORD, "Name: Ada; City: Oslo; Job: pilot"),
    ("Swap the name and the value of each field.", RECORD, "Ada: name; Oslo: city; pilot: job"),
    ("List the names of the fields, separated by commas.", RECORD, "name, city, job"),
    ("List the values of the fields, separated by commas.", RECORD, "Ada, Oslo, pilot"),
    ('What is the value of the field "city"?', RECORD, "Oslo"),
    ('What is the value of the field "meal"?', RECORD, None),
    ('Does the record have a field "city"? Answer yes or no.', RECORD, "yes"),
    ('Does the record have a field "meal"? Answer yes or no.', RECORD, "no"),
    ("How many fields does the record have?", RECORD, "3"),
    ("Sort the people by score, the highest first.", SCORES, "Omar: 31; Zoe: 12; Ben: 7"),
    ("Sort the people by score, the highest first.", "Omar: 5; Ben: 7; Zoe: 7", None),
    ("Sort the people by name, alphabetically.", SCORES, "Ben: 7; Omar: 31; Zoe: 12"),
    ("Reverse the order of the people.", SCORES, "Zoe: 12; Ben: 7; Omar: 31"),
    ("Remove the first person with the score.", SCORES, "Ben: 7; Zoe: 12"),
    ("Remove Ben from the score list.", SCORES, "Omar: 31; Zoe: 12"),
    ("Remove the person with the lowest score.", SCORES, "Omar: 31; Zoe: 12"),
    ("Remove the person with the highest score.", SCORES, "Ben: 7; Zoe: 12"),
    ("Keep only the people who scored more than 7.", SCORES, "Omar: 31; Zoe: 12"),
    ("Give Ben 10 more points.", SCORES, "Omar: 31; Ben: 17; Zoe: 12"),
    ("Give everybody 10 more points.", SCORES, "Omar: 41; Ben: 17; Zoe: 22"),
    ("Double every score.", SCORES, "Omar: 62; Ben: 14; Zoe: 24"),
    ("Add Mei with a score of 9 at the end.", SCORES, "Omar: 31; Ben: 7; Zoe: 12; Mei: 9"),
    ("List the people's names without their scores, separated by commas.", SCORES, "Omar, Ben, Zoe"),
    ("List the scores without the names, separated by commas.", SCORES, "31, 7, 12"),
    ("Who has the highest score?", SCORES, "Omar"),
    ("What is the score of Zoe?", SCORES, "12"),
    ("What is the score of Mei?", SCORES, None),
    ("What is the total of the scores?", SCORES, "50"),
    ("Does Zoe have more points than Ben? Answer yes or no.", SCORES, "yes"),
    ("Does Zoe have more points than Omar? Answer yes or no.", SCORES, "no"),
    ('Is "Zoe" in the score list? Answer yes or no.', SCORES, "yes"),
    ('Is "Mei" in the score list? Answer yes or no.', SCORES, "no"),
]


@pytest.mark.parametrize(("instruction", "text", "expected"), CASES)
def test_output_is_what_a_person_computes(instruction: str, text: str, expected: str | None) -> None:
    assert execute(instruction, text) == expected


def test_every_operation_was_computed_by_hand() -> None:
    computed = {found[0].name for instruction, _, expected in CASES if expected and (found := understand(instruction))}
    assert computed == set(by_name())


def drawn(operation: Operation, seed: int) -> tuple[object, dict[str, object]] | None:
    """A value and arguments that suit the operation."""
    random = Random(seed)
    value = operation.source.draw(random, random.randint(2, 8))
    arguments = operation.draw_arguments(random, value)
    return None if arguments is None else (value, arguments)


operations = st.sampled_from(OPERATIONS)
seeds = st.integers(0, 10**9)


@given(operations, seeds, st.integers(0, 3))
@settings(max_examples=600)
def test_one_operation_only_is_asked_for_by_an_instruction(operation: Operation, seed: int, phrasing: int) -> None:
    found = drawn(operation, seed)
    if found:
        instruction = operation.instruction(phrasing, found[1])
        readings = [(other, other.read(instruction)) for other in OPERATIONS]
        assert [reading for reading in readings if reading[1] is not None] == [(operation, found[1])]


@given(operations, seeds)
@settings(max_examples=600)
def test_values_come_back_from_their_text_before_and_after_an_operation(operation: Operation, seed: int) -> None:
    found = drawn(operation, seed)
    if found:
        value, arguments = found
        assert operation.source.read(operation.source.text(value)) == value
        result = operation.apply(value, arguments)
        if result is not None:
            text = operation.result.text(result)
            assert text
            assert operation.result.read(text) == result


@given(operations, seeds, st.text(max_size=30) | st.sampled_from([case[1] for case in CASES]))
@settings(max_examples=600)
def test_any_text_is_a_possible_input(operation: Operation, seed: int, text: str) -> None:
    found = drawn(operation, seed)
    if found:
        output = execute(operation.instruction(0, found[1]), text)
        assert output is None or output


@pytest.mark.parametrize("name", [op.name for op in OPERATIONS if op.category == "yes-no question"])
def test_yes_and_no_are_both_frequent(name: str) -> None:
    operation = by_name()[name]
    answers = [operation.apply(*found) for seed in range(200) if (found := drawn(operation, seed))]
    assert min(answers.count("yes"), answers.count("no")) > 0.15 * len(answers)


def test_the_catalogue_is_large_varied_and_documented() -> None:
    assert len(OPERATIONS) >= 30
    assert len(by_name()) == len(OPERATIONS)
    assert all(len(set(operation.phrasings)) == 4 for operation in OPERATIONS)
    assert all(operation.level in (1, 2, 3) for operation in OPERATIONS)
    assert len({phrasing for operation in OPERATIONS for phrasing in operation.phrasings}) == 4 * len(OPERATIONS)
    assert len(table(OPERATIONS).splitlines()) == len(OPERATIONS) + 2
    assert set(numbers()) == set(by_name())
    assert sum(map(len, families().values())) == len(OPERATIONS)


def test_sizes_of_inputs_are_as_asked() -> None:
    for items in range(2, 13):
        for operation in OPERATIONS:
            value = operation.source.draw(Random(items), items)
            assert operation.source.name == "sentence" or len(value) == items
