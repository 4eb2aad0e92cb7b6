"""Operations on lists of whole numbers."""

import functools
import itertools

from data_pipeline.procedural.operation import Operation, integer, number_from
from data_pipeline.procedural.values import ANSWER, NUMBERS, WORDS, Numbers

LARGEST = 9999
"""Results beyond this, positive or negative, count as making no sense."""

_edit = functools.partial(Operation, family="numbers", source=NUMBERS, result=NUMBERS)
_ask = functools.partial(Operation, family="numbers", source=NUMBERS, result=ANSWER)

LISTED = number_from("number", list)

SMALL = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def _bounded(numbers: Numbers) -> Numbers:
    return numbers if all(abs(number) <= LARGEST for number in numbers) else ()


def _without_one(numbers: Numbers, number: int) -> Numbers:
    """Return the list without a number that it has once."""
    return tuple(other for other in numbers if other != number) if numbers.count(number) == 1 else ()


def _in_words(numbers: Numbers) -> tuple[str, ...]:
    """Return English number words, for numbers from 0 to 99."""
    return tuple(map(_number_word, numbers)) if all(0 <= number < 100 for number in numbers) else ()


def _number_word(number: int) -> str:
    if number < len(SMALL):
        return SMALL[number]
    tens, units = divmod(number, 10)
    return TENS[tens - 2] + (f"-{SMALL[units]}" if units else "")


def _running_totals(numbers: Numbers) -> Numbers:
    return _bounded(tuple(itertools.accumulate(numbers)))


def _differences(numbers: Numbers) -> Numbers:
    return tuple(second - first for first, second in itertools.pairwise(numbers))


def _compare_ends(numbers: Numbers) -> str | None:
    if len(numbers) < 2:
        return None
    first, last = numbers[0], numbers[-1]
    return "equal" if first == last else "first" if first > last else "last"


def _median(numbers: Numbers) -> str | None:
    """Return the middle one of an odd number of different numbers."""
    if len(numbers) % 2 == 0 or len(set(numbers)) < len(numbers):
        return None
    return str(sorted(numbers)[len(numbers) // 2])


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


MOVES = (
    _edit(
        name="reverse_numbers",
        category="reordering",
        level=1,
        phrasings=(
            "Reverse the order of the numbers.",
            "Write the numbers in the opposite order.",
            "Put the list of numbers backwards, from the last to the first.",
            "Turn the sequence of numbers around.",
        ),
        compute=lambda numbers: numbers[::-1],
    ),
    _edit(
        name="remove_first_number",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the first number.",
            "Delete the number at the start of the list.",
            "Drop the number that comes first.",
            "Leave out the number that the list begins with.",
        ),
        compute=lambda numbers: numbers[1:],
    ),
    _edit(
        name="append_number",
        category="insertion",
        level=1,
        phrasings=(
            "Add the number {number} at the end.",
            "Append {number} to the numbers.",
            "Put the number {number} behind the last one.",
            "Let the numbers end with one more, {number}.",
        ),
        compute=lambda numbers, number: (*numbers, number),
        parameters=(integer("number", 1, 60),),
    ),
    _edit(
        name="rotate_numbers",
        category="reordering",
        level=1,
        phrasings=(
            "Move the first number to the end.",
            "Take the first number and put it behind the others.",
            "Rotate the numbers by one place to the left.",
            "Shift the number at the start of the list to its end.",
        ),
        compute=lambda numbers: numbers[1:] + numbers[:1],
    ),
)

SEARCHES = (
    _edit(
        name="sort_numbers",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the numbers from smallest to largest.",
            "Put the numbers in increasing order.",
            "Arrange the numbers so that the smallest comes first.",
            "Order the numbers by size, going up.",
        ),
        compute=lambda numbers: tuple(sorted(numbers)),
    ),
    _edit(
        name="sort_numbers_descending",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the numbers from largest to smallest.",
            "Put the numbers in decreasing order.",
            "Arrange the numbers so that the largest comes first.",
            "Order the numbers by size, going down.",
        ),
        compute=lambda numbers: tuple(sorted(numbers, reverse=True)),
    ),
    _edit(
        name="keep_even_numbers",
        category="filtering",
        level=2,
        phrasings=(
            "Keep only the even numbers.",
            "Remove the odd numbers.",
            "Write down the numbers that two divides.",
            "Filter out every number that is odd.",
        ),
        compute=lambda numbers: tuple(number for number in numbers if number % 2 == 0),
    ),
    _edit(
        name="keep_odd_numbers",
        category="filtering",
        level=2,
        phrasings=(
            "Keep only the odd numbers.",
            "Remove the even numbers.",
            "Write down the numbers that two does not divide.",
            "Filter out every number that is even.",
        ),
        compute=lambda numbers: tuple(number for number in numbers if number % 2),
    ),
    _edit(
        name="keep_larger_numbers",
        category="filtering",
        level=2,
        phrasings=(
            "Keep only the numbers greater than {number}.",
            "Remove the numbers that are {number} or less.",
            "Write down the numbers that are larger than {number}.",
            "Filter the numbers down to those above {number}.",
        ),
        compute=lambda numbers, number: tuple(other for other in numbers if other > number),
        parameters=(LISTED,),
    ),
    _edit(
        name="keep_smaller_numbers",
        category="filtering",
        level=2,
        phrasings=(
            "Keep only the numbers less than {number}.",
            "Remove the numbers that are {number} or more.",
            "Write down the numbers that are smaller than {number}.",
            "Filter the numbers down to those below {number}.",
        ),
        compute=lambda numbers, number: tuple(other for other in numbers if other < number),
        parameters=(LISTED,),
    ),
    _edit(
        name="remove_largest_number",
        category="deletion",
        level=2,
        phrasings=(
            "Remove the largest number.",
            "Delete the maximum from the numbers.",
            "Drop the biggest of the numbers.",
            "Leave out the number that exceeds all others.",
        ),
        compute=lambda numbers: _without_one(numbers, max(numbers)),
    ),
    _edit(
        name="remove_smallest_number",
        category="deletion",
        level=2,
        phrasings=(
            "Remove the smallest number.",
            "Delete the minimum from the numbers.",
            "Drop the least of the numbers.",
            "Leave out the number that is below all others.",
        ),
        compute=lambda numbers: _without_one(numbers, min(numbers)),
    ),
    _edit(
        name="replace_number",
        category="replacement",
        level=2,
        phrasings=(
            "Replace the number {number} with {new}.",
            "Change {number} to {new} in the numbers.",
            "Write {new} instead of the number {number}.",
            "Let the number {new} take the place of {number}.",
        ),
        compute=lambda numbers, number, new: tuple(new if other == number else other for other in numbers),
        parameters=(LISTED, integer("new", 1, 60)),
    ),
)

CALCULATIONS = (
    _edit(
        name="add_to_numbers",
        category="arithmetic",
        level=3,
        phrasings=(
            "Add {amount} to each number.",
            "Increase every number by {amount}.",
            "Write each of the numbers plus {amount}.",
            "Raise all the numbers by {amount}.",
        ),
        compute=lambda numbers, amount: _bounded(tuple(number + amount for number in numbers)),
        parameters=(integer("amount", 1, 20),),
    ),
    _edit(
        name="subtract_from_numbers",
        category="arithmetic",
        level=3,
        phrasings=(
            "Subtract {amount} from each number.",
            "Decrease every number by {amount}.",
            "Write each of the numbers minus {amount}.",
            "Lower all the numbers by {amount}.",
        ),
        compute=lambda numbers, amount: _bounded(tuple(number - amount for number in numbers)),
        parameters=(integer("amount", 1, 20),),
    ),
    _edit(
        name="multiply_numbers",
        category="arithmetic",
        level=3,
        phrasings=(
            "Multiply each number by {factor}.",
            "Write {factor} times every number.",
            "Replace every number with its product with {factor}.",
            "Let each of the numbers be {factor} times as large.",
        ),
        compute=lambda numbers, factor: _bounded(tuple(number * factor for number in numbers)),
        parameters=(integer("factor", 2, 9),),
    ),
    _edit(
        name="square_numbers",
        category="arithmetic",
        level=3,
        phrasings=(
            "Square each number.",
            "Replace every number with its square.",
            "Multiply each number by itself.",
            "Raise all the numbers to the power of two.",
        ),
        compute=lambda numbers: _bounded(tuple(number * number for number in numbers)),
    ),
    _edit(
        name="remainders",
        category="arithmetic",
        level=3,
        phrasings=(
            "Replace each number with its remainder after division by {divisor}, never a negative one.",
            "Divide every number by {divisor} and write the remainders, none of them negative.",
            "Write each number modulo {divisor}, as a number that is not negative.",
            "Give what is left of each number after taking out multiples of {divisor}, never less than 0.",
        ),
        compute=lambda numbers, divisor: tuple(number % divisor for number in numbers),
        parameters=(integer("divisor", 3, 10),),
    ),
    _edit(
        name="running_totals",
        category="arithmetic",
        level=3,
        phrasings=(
            "Write the running totals of the numbers.",
            "Replace each number with the sum of all numbers up to it, itself included.",
            "Give the cumulative sums of the numbers.",
            "For each number, add it to all those before it and write the sum.",
        ),
        compute=_running_totals,
    ),
    _edit(
        name="differences",
        category="arithmetic",
        level=3,
        phrasings=(
            "Write the differences between neighboring numbers, each number subtracted from the next.",
            "For each number but the first, write how much it exceeds the number before it.",
            "Replace the numbers with the steps from each one to the next.",
            "Give by how much the sequence of numbers changes from place to place.",
        ),
        compute=_differences,
    ),
    _edit(
        name="negate_numbers",
        category="arithmetic",
        level=2,
        phrasings=(
            "Change the sign of each number.",
            "Multiply every number by -1.",
            "Write the negative of each number.",
            "Turn positive numbers into negative ones and negative ones into positive ones.",
        ),
        compute=lambda numbers: tuple(-number for number in numbers),
    ),
)

CONVERSIONS = (
    Operation(
        name="numbers_in_words",
        family="conversions",
        category="conversion",
        level=3,
        source=NUMBERS,
        result=WORDS,
        phrasings=(
            "Write the numbers in words.",
            "Spell out each number in English.",
            "Replace the digits of every number with the number's English name.",
            "Give the English word for each of the numbers.",
        ),
        compute=_in_words,
    ),
    Operation(
        name="parity_of_numbers",
        family="conversions",
        category="classification",
        level=2,
        source=NUMBERS,
        result=WORDS,
        phrasings=(
            "Write even or odd for each number.",
            "Replace every number with the word even or the word odd, whichever it is.",
            "Classify each of the numbers as even or odd.",
            "For each number, say in one word whether two divides it: even or odd.",
        ),
        compute=lambda numbers: tuple("odd" if number % 2 else "even" for number in numbers),
    ),
)

QUESTIONS = (
    _ask(
        name="sum_of_numbers",
        category="arithmetic",
        level=3,
        phrasings=(
            "What is the sum of the numbers?",
            "Add up all the numbers.",
            "Give the total of the numbers.",
            "Say how much all the numbers make together.",
        ),
        compute=lambda numbers: str(sum(numbers)),
    ),
    _ask(
        name="largest_number",
        category="comparison",
        level=2,
        phrasings=(
            "What is the largest number?",
            "Give the maximum of the numbers.",
            "Which of the numbers is the biggest?",
            "Answer with the number that no other exceeds.",
        ),
        compute=lambda numbers: str(max(numbers)),
    ),
    _ask(
        name="smallest_number",
        category="comparison",
        level=2,
        phrasings=(
            "What is the smallest number?",
            "Give the minimum of the numbers.",
            "Which of the numbers is the least?",
            "Answer with the number that no other is below.",
        ),
        compute=lambda numbers: str(min(numbers)),
    ),
    _ask(
        name="count_even_numbers",
        category="counting",
        level=2,
        phrasings=(
            "How many of the numbers are even?",
            "Count the even numbers.",
            "Say how many even numbers there are.",
            "Give the count of numbers that two divides.",
        ),
        compute=lambda numbers: str(sum(number % 2 == 0 for number in numbers)),
    ),
    _ask(
        name="range_of_numbers",
        category="arithmetic",
        level=3,
        phrasings=(
            "What is the difference between the largest and the smallest number?",
            "Subtract the smallest of the numbers from the largest.",
            "Give the range of the numbers, the maximum minus the minimum.",
            "Say how far apart the extremes of the numbers are.",
        ),
        compute=lambda numbers: str(max(numbers) - min(numbers)),
    ),
    _ask(
        name="is_sum_even",
        category="yes-no question",
        level=3,
        phrasings=(
            "Is the sum of the numbers even? Answer yes or no.",
            "Add up the numbers and say yes if the total is even and no if it is odd.",
            "Does two divide the total of the numbers? Answer yes or no.",
            "Check whether the numbers add up to an even number, and answer yes or no.",
        ),
        compute=lambda numbers: _yes(sum(numbers) % 2 == 0),
    ),
    _ask(
        name="compare_end_numbers",
        category="comparison",
        level=2,
        phrasings=(
            "Which is larger, the first or the last number? Answer first, last or equal.",
            "Compare the first number with the last and answer first, last or equal for the larger one.",
            "Say which end of the list has the larger number: first, last or equal.",
            "Answer first if the first number exceeds the last, last if it is below it, and equal if neither.",
        ),
        compute=_compare_ends,
    ),
    _ask(
        name="median",
        category="comparison",
        level=3,
        phrasings=(
            "What is the median of the numbers?",
            "Answer with the number that has as many smaller as larger ones beside it.",
            "Put the numbers in order in your head and give only the one in the middle.",
            "Say which of the numbers lies in the middle by size.",
        ),
        compute=_median,
    ),
)

OPERATIONS = (*MOVES, *SEARCHES, *CALCULATIONS, *CONVERSIONS, *QUESTIONS)
