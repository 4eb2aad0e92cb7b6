"""Operations, and the parameters that their instructions may name."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from data_pipeline.procedural import lexicon
from data_pipeline.procedural.values import ANSWER, ValueType


@dataclass(frozen=True)
class Parameter:
    """A part of an instruction that changes from one use to the next, as the word to add.

    Attributes:
      name: the keyword argument of the operation's `compute`, and its `{name}` in the phrasings.
      pattern: the regular expression of its text.
      read: its value from its text.
      draw: a random value that suits the value which the operation will meet, or None where none does.
    """

    name: str
    pattern: str
    read: Callable[[str], Any]
    draw: Callable[[Random, Any], Any | None]


@dataclass(frozen=True, eq=False)
class Operation:
    """A typed operation on text: several ways to ask for it, and code that computes its output.

    Attributes:
      name: unique; the `task` of its steps.
      family: what selects it together with its like.
      category: the `category` of its steps.
      level: 1 moves or copies whole items, 2 looks at every item or letter, 3 calculates or spells.
      source: the type it takes.
      result: the type it gives; `ANSWER` makes it closed, so that it may only come last.
      phrasings: ways to ask for it; the last is held out of training (split `rephrased`).
      compute: the result of a value, by keyword of its parameters. None or an empty value says that the operation
        makes no sense there, for instance that "the longest word" is not one word.
      parameters: in the order in which they are drawn.
    """

    name: str
    family: str
    category: str
    level: int
    source: ValueType
    result: ValueType
    phrasings: tuple[str, ...]
    compute: Callable[..., Any]
    parameters: tuple[Parameter, ...] = ()

    @property
    def closed(self) -> bool:
        """Return whether its output is a closed answer."""
        return self.result is ANSWER

    def apply(self, value: Any, arguments: dict[str, Any]) -> Any | None:
        """Return the result, or None where the operation makes no sense for this value."""
        return self.compute(value, **arguments) or None

    def draw_arguments(self, random: Random, value: Any) -> dict[str, Any] | None:
        """Return random arguments that suit `value`, or None where there are none."""
        arguments = {}
        for parameter in self.parameters:
            drawn = parameter.draw(random, value)
            if drawn is None:
                return None
            arguments[parameter.name] = drawn
        return arguments if len(set(arguments.values())) == len(arguments) else None

    def instruction(self, phrasing: int, arguments: dict[str, Any]) -> str:
        """Return the text that asks for this operation."""
        return self.phrasings[phrasing].format(**arguments)

    def read(self, instruction: str) -> dict[str, Any] | None:
        """Return the arguments in an instruction, or None where it asks for something else."""
        for pattern in self._patterns:
            if match := pattern.fullmatch(instruction):
                return {parameter.name: parameter.read(match[parameter.name]) for parameter in self.parameters}
        return None

    @functools.cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        groups = {parameter.name: f"(?P<{parameter.name}>{parameter.pattern})" for parameter in self.parameters}
        escaped = [re.escape(phrasing).replace(r"\{", "{").replace(r"\}", "}") for phrasing in self.phrasings]
        return [re.compile(phrasing.format(**groups)) for phrasing in escaped]


def integer(name: str, low: int, high: int) -> Parameter:
    """Return the parameter for a whole number from `low` to `high`.

    Args:
      name: of the parameter.
      low: the smallest value.
      high: the largest value.
    """
    return Parameter(name, "[0-9]+", int, lambda random, value: random.randint(low, high))


def new_word(name: str) -> Parameter:
    """Return the parameter for a word of the lexicon."""
    return choice(name, lambda value: lexicon.NOUNS, r"\S+")


def choice(name: str, options: Callable[[Any], Any], pattern: str = r"[^\s\"]+") -> Parameter:
    """Return the parameter for one of the options that a value offers.

    Args:
      name: of the parameter.
      options: of a value.
      pattern: a regular expression for an option in an instruction.
    """

    def draw(random: Random, value: Any) -> Any | None:
        offered = options(value)
        return random.choice(offered) if offered else None

    return Parameter(name, pattern, str, draw)


def number_from(name: str, options: Callable[[Any], list[int]]) -> Parameter:
    """Return the parameter for one of the numbers that a value offers."""
    drawn = choice(name, options).draw
    return Parameter(name, "-?[0-9]+", int, drawn)


def maybe(name: str, options: Callable[[Any], Any], others: Callable[[Any], Any]) -> Parameter:
    """Return the parameter for an option that a value offers or, as often, for another: for yes-or-no questions.

    Args:
      name: of the parameter.
      options: of a value.
      others: that a value does not offer.
    """

    def draw(random: Random, value: Any) -> Any | None:
        offered = (options if random.random() < 0.5 else others)(value)
        return random.choice(offered) if offered else None

    return Parameter(name, r"[^\s\"]+", str, draw)
