"""Operations on people's scores."""

import functools
from collections.abc import Callable

from data_pipeline.procedural import lexicon
from data_pipeline.procedural.operation import Operation, choice, integer, maybe, number_from
from data_pipeline.procedural.values import ANSWER, NUMBERS, SCORES, WORDS, Scores

_edit = functools.partial(Operation, family="scores", source=SCORES, result=SCORES)
_ask = functools.partial(Operation, family="scores", source=SCORES, result=ANSWER)
_convert = functools.partial(Operation, family="conversions", source=SCORES)


def _names(scores: Scores) -> list[str]:
    return [name for name, _ in scores]


def _absent_names(scores: Scores) -> list[str]:
    return [name for name in lexicon.PEOPLE if name not in _names(scores)]


def _points(scores: Scores) -> list[int]:
    return [points for _, points in scores]


NAME = "[A-Z][a-z]+"

PERSON = choice("name", _names, NAME)


def _without_extreme(scores: Scores, extreme: Callable[[list[int]], int]) -> Scores:
    """Return the scores without the lowest or the highest, where one is."""
    points = _points(scores)
    if points.count(extreme(points)) > 1:
        return ()
    return tuple(pair for pair in scores if pair[1] != extreme(points))


def _rank(scores: Scores) -> Scores:
    """Sort the highest first; nothing where two are equal, as their order would be open."""
    if len(set(_points(scores))) < len(scores):
        return ()
    return tuple(sorted(scores, key=lambda pair: -pair[1]))


def _give(scores: Scores, name: str, amount: int) -> Scores:
    return tuple((other, points + amount * (other == name)) for other, points in scores)


def _change_all(scores: Scores, change: Callable[[int], int]) -> Scores:
    """Return every score changed; nothing where one gets beyond four digits."""
    changed = tuple((name, change(points)) for name, points in scores)
    return changed if max(_points(changed)) <= 9999 else ()


def _add_person(scores: Scores, new: str, amount: int) -> Scores:
    return (*scores, (new, amount)) if new not in _names(scores) else ()


def _of(scores: Scores, name: str) -> str | None:
    return str(dict(scores)[name]) if name in _names(scores) else None


def _winner(scores: Scores) -> str | None:
    best = max(_points(scores))
    winners = [name for name, points in scores if points == best]
    return winners[0] if len(winners) == 1 else None


def _beats(scores: Scores, name: str, other: str) -> str | None:
    """Return whether one of two people in the list has more points."""
    points = dict(scores)
    if name not in points or other not in points or name == other:
        return None
    return "yes" if points[name] > points[other] else "no"


EDITS = (
    _edit(
        name="rank_scores",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the people by score, the highest first.",
            "Rank the people from the most points to the fewest.",
            "Put the scores in decreasing order, each with its name.",
            "Write the score list as a ranking that the best leads.",
        ),
        compute=_rank,
    ),
    _edit(
        name="sort_people",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the people by name, alphabetically.",
            "Put the score list in alphabetical order of names.",
            "Order the people from A to Z and keep their scores.",
            "Arrange the names in the score list as the alphabet has them.",
        ),
        compute=lambda scores: tuple(sorted(scores)),
    ),
    _edit(
        name="reverse_scores",
        category="reordering",
        level=1,
        phrasings=(
            "Reverse the order of the people.",
            "Write the score list from the last person to the first.",
            "Put the people in the opposite order, each with the same score.",
            "Turn the score list around.",
        ),
        compute=lambda scores: scores[::-1],
    ),
    _edit(
        name="remove_first_person",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the first person with the score.",
            "Delete the entry at the start of the score list.",
            "Drop the person whom the score list begins with.",
            "Leave out the person listed first, score and all.",
        ),
        compute=lambda scores: scores[1:],
    ),
    _edit(
        name="remove_person",
        category="deletion",
        level=2,
        phrasings=(
            "Remove {name} from the score list.",
            "Delete the score of {name}, name and all.",
            "Drop {name} from the list of people.",
            "Write the score list without {name}.",
        ),
        compute=lambda scores, name: tuple(pair for pair in scores if pair[0] != name),
        parameters=(PERSON,),
    ),
    _edit(
        name="remove_lowest_score",
        category="deletion",
        level=2,
        phrasings=(
            "Remove the person with the lowest score.",
            "Delete whoever has the fewest points.",
            "Drop the lowest score together with its name.",
            "Leave out the person whom all others beat.",
        ),
        compute=lambda scores: _without_extreme(scores, min),
    ),
    _edit(
        name="remove_highest_score",
        category="deletion",
        level=2,
        phrasings=(
            "Remove the person with the highest score.",
            "Delete whoever has the most points.",
            "Drop the highest score together with its name.",
            "Leave out the person who beats all others.",
        ),
        compute=lambda scores: _without_extreme(scores, max),
    ),
    _edit(
        name="keep_higher_scores",
        category="filtering",
        level=2,
        phrasings=(
            "Keep only the people who scored more than {points}.",
            "Remove everybody with a score of {points} or less.",
            "Write down the people whose scores are above {points}.",
            "Filter the score list down to those with over {points} points.",
        ),
        compute=lambda scores, points: tuple(pair for pair in scores if pair[1] > points),
        parameters=(number_from("points", _points),),
    ),
    _edit(
        name="give_points",
        category="arithmetic",
        level=3,
        phrasings=(
            "Give {name} {amount} more points.",
            "Raise the score of {name} by {amount}.",
            "Add {amount} to what {name} scored.",
            "Let {name} have {amount} points more than before.",
        ),
        compute=_give,
        parameters=(PERSON, integer("amount", 1, 30)),
    ),
    _edit(
        name="add_to_scores",
        category="arithmetic",
        level=3,
        phrasings=(
            "Give everybody {amount} more points.",
            "Raise every score by {amount}.",
            "Add {amount} to each person's score.",
            "Let all people have {amount} points more than before.",
        ),
        compute=lambda scores, amount: _change_all(scores, lambda points: points + amount),
        parameters=(integer("amount", 1, 20),),
    ),
    _edit(
        name="double_scores",
        category="arithmetic",
        level=3,
        phrasings=(
            "Double every score.",
            "Multiply each person's score by two.",
            "Give everybody twice the points.",
            "Let all the scores be two times as high.",
        ),
        compute=lambda scores: _change_all(scores, lambda points: 2 * points),
    ),
    _edit(
        name="add_person",
        category="insertion",
        level=2,
        phrasings=(
            "Add {new} with a score of {amount} at the end.",
            "Append {new} to the score list with {amount} points.",
            "Let the list of people end with {new}, who scored {amount}.",
            "Extend the score list by {new}, who has {amount} points.",
        ),
        compute=_add_person,
        parameters=(choice("new", _absent_names, NAME), integer("amount", 1, 60)),
    ),
)

CONVERSIONS = (
    _convert(
        name="list_people",
        category="extraction",
        level=1,
        result=WORDS,
        phrasings=(
            "List the people's names without their scores, separated by commas.",
            "Write down only the names in the score list, with commas between.",
            "Extract the names of the people as a list with commas.",
            "Turn the score list into a comma-separated list of names.",
        ),
        compute=lambda scores: tuple(_names(scores)),
    ),
    _convert(
        name="list_scores",
        category="extraction",
        level=1,
        result=NUMBERS,
        phrasings=(
            "List the scores without the names, separated by commas.",
            "Write down only the points in the score list, with commas between.",
            "Extract the scores of the people as numbers with commas.",
            "Turn the score list into a comma-separated list of its numbers.",
        ),
        compute=lambda scores: tuple(_points(scores)),
    ),
)

QUESTIONS = (
    _ask(
        name="winner",
        category="comparison",
        level=2,
        phrasings=(
            "Who has the highest score?",
            "Name the person with the most points.",
            "Answer with the name of the winner, who scored highest.",
            "Say which of the people beats all others.",
        ),
        compute=_winner,
    ),
    _ask(
        name="score_of_person",
        category="extraction",
        level=2,
        phrasings=(
            "What is the score of {name}?",
            "How many points does {name} have?",
            "Look up how much {name} scored.",
            "Give only the number of points that stands behind {name}.",
        ),
        compute=_of,
        parameters=(PERSON,),
    ),
    _ask(
        name="total_score",
        category="arithmetic",
        level=3,
        phrasings=(
            "What is the total of the scores?",
            "Add up everybody's points.",
            "Give the sum of all the scores.",
            "Say how many points the people have together.",
        ),
        compute=lambda scores: str(sum(_points(scores))),
    ),
    _ask(
        name="beats",
        category="yes-no question",
        level=2,
        phrasings=(
            "Does {name} have more points than {other}? Answer yes or no.",
            "Did {name} score higher than {other}? Answer yes or no.",
            "Say yes if {name} beats {other} and no if not.",
            "Compare the scores and answer yes or no: is {name} ahead of {other}?",
        ),
        compute=_beats,
        parameters=(PERSON, choice("other", _names, NAME)),
    ),
    _ask(
        name="has_person",
        category="yes-no question",
        level=2,
        phrasings=(
            'Is "{name}" in the score list? Answer yes or no.',
            'Does the score list name "{name}"? Answer yes or no.',
            'Say yes if "{name}" is one of the people and no if not.',
            'Check the list of people for "{name}" and answer yes or no.',
        ),
        compute=lambda scores, name: "yes" if name in _names(scores) else "no",
        parameters=(maybe("name", _names, _absent_names),),
    ),
)

OPERATIONS = (*EDITS, *CONVERSIONS, *QUESTIONS)
