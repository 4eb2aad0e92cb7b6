"""Rules of composition: which task may follow which, by kinds of text and places, before any model is asked.

The rules are data (`rules.toml`). A task that gives a closed answer comes last, whatever its category: the paper's rule
goes by category, and 354 first steps of its release are closed questions all the same.
"""

import functools
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pydantic

from coi_jax.common.schema import Section
from data_pipeline.build.drafts import Seed

Place = Literal["first", "middle", "last"]
PLACES: tuple[Place, ...] = ("first", "middle", "last")
FIRST, MIDDLE, LAST = PLACES
CLOSED = "label"  # the kind that closed answers are of
OK = "may follow"
SAME_TASK = "the same task"
NOT_BEFORE = "the first comes last only"
NOT_AFTER = "the second comes first only"
OTHER_KIND = "the second does not take what the first gives"
OTHER_SPLIT = "one is for training, the other for tests"
REASONS = (OK, SAME_TASK, OTHER_SPLIT, NOT_BEFORE, NOT_AFTER, OTHER_KIND)


class CategoryRule(Section):
    """The kinds of text that a category takes and gives, and its places in a chain."""

    takes: tuple[str, ...]
    gives: str
    places: tuple[Place, ...] = PLACES


class Rules(pydantic.BaseModel):
    """All of `rules.toml`."""

    kinds: dict[str, str]
    categories: dict[str, CategoryRule]
    aliases: dict[str, str]

    @pydantic.model_validator(mode="after")
    def _names_are_known(self) -> "Rules":
        for category, rule in self.categories.items():
            if unknown := {*rule.takes, rule.gives} - set(self.kinds):
                raise ValueError(f"{category}: no such kind: {', '.join(sorted(unknown))}")
        if unknown := set(self.aliases.values()) - set(self.categories):
            raise ValueError(f"aliases: no such category: {', '.join(sorted(unknown))}")
        return self


@functools.cache
def load() -> Rules:
    """Return the project's rules."""
    text = (Path(__file__).parent / "rules.toml").read_text(encoding="utf-8")
    return Rules.model_validate(tomllib.loads(text))


def category_of(name: str) -> str:
    """Return a category by its usual name, where it is known by another."""
    return load().aliases.get(name, name)


@dataclass(frozen=True)
class Role:
    """The properties of a task that the rules look at."""

    takes: frozenset[str]
    gives: str
    places: frozenset[str]

    @classmethod
    def of(cls, seed: Seed) -> "Role":
        """Return the role of a task, by its own kinds where its source knows them, else by its category's."""
        open_text = CategoryRule(takes=tuple(load().kinds), gives="sentence")
        rule = load().categories.get(seed.category or "", open_text)
        takes, gives = seed.takes or rule.takes, seed.gives or rule.gives
        places = set(rule.places)
        if seed.closed or gives == CLOSED:
            gives, places = CLOSED, places & {LAST}
        return cls(frozenset(takes), gives, frozenset(places))


def judge(first: Role, second: Role) -> str:
    """Return whether a task may come right after another, by their roles: one of `REASONS`."""
    if not first.places - {LAST}:
        return NOT_BEFORE
    if not second.places - {FIRST}:
        return NOT_AFTER
    return OK if first.gives in second.takes else OTHER_KIND


class PairRules:
    """The rules over some tasks. There are few different roles, so most pairs of tasks are judged by looking up."""

    def __init__(self, seeds: Sequence[Seed]) -> None:
        self._roles = {seed.id: Role.of(seed) for seed in seeds}
        self._judge: Callable[[Role, Role], str] = functools.cache(judge)

    def pair(self, first: Seed, second: Seed) -> str:
        """Return whether a task may come right after another: one of `REASONS`."""
        if first.id == second.id:
            return SAME_TASK
        if first.split != second.split:
            return OTHER_SPLIT
        return self._judge(self._roles[first.id], self._roles[second.id])

    def may_start(self, task: str) -> bool:
        """Return whether a task may come first in a chain of several steps."""
        return FIRST in self._roles[task].places
