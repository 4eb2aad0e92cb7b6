"""Measures precision and recall of the stages of a build, where its tasks are procedural and the truth is computed.

Precision is the share of what a stage let through that should pass, recall the share of what should pass that it let
through. With the procedural language model both are 1 but for the rules, which go by types and cannot see values.

The truth of a step follows from its task, which is an operation: a language model may word its instruction in any way.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from data_pipeline.build import rules
from data_pipeline.build.drafts import Draft, Seed
from data_pipeline.build.engine.stage_runner import REJECTED, Stage
from data_pipeline.build.pipeline import BuildResult
from data_pipeline.build.stages.checks import NOT_COMPOSABLE, is_composable
from data_pipeline.build.stages.opinions import POOR
from data_pipeline.procedural import catalogue
from data_pipeline.procedural.verification import execute, follow


@dataclass(frozen=True)
class Score:
    """Counts of pairs of (let through, should pass)."""

    stage: str
    passed_right: int
    passed: int
    right: int
    total: int

    @property
    def precision(self) -> float | None:
        """Return the precision; None where nothing passed."""
        return self.passed_right / self.passed if self.passed else None

    @property
    def recall(self) -> float | None:
        """Return the recall; None where nothing should have passed."""
        return self.passed_right / self.right if self.right else None

    @property
    def agreed(self) -> int:
        """Return how often what a stage did is what it should do."""
        return self.total - self.passed - self.right + 2 * self.passed_right

    def row(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "stage": self.stage,
            "total": self.total,
            "agreed": self.agreed,
            "passed": self.passed,
            "right": self.right,
            "passed_right": self.passed_right,
            "precision": self.precision,
            "recall": self.recall,
        }


def score(stage: str, pairs: Iterable[tuple[bool, bool]]) -> Score:
    """Return the score of pairs of (let through, should pass)."""
    passed_right = passed = right = total = 0
    for let_through, should_pass in pairs:
        total += 1
        passed += let_through
        right += should_pass
        passed_right += let_through and should_pass
    return Score(stage, passed_right, passed, right, total)


def is_known(built: BuildResult) -> bool:
    """Return whether all tasks of a build are procedural operations."""
    return all(seed["source"] == "procedural" for seed in built.seeds.read())


def scores(built: BuildResult) -> list[Score]:
    """Return the scores of a build's stages, in their order; for builds of procedural operations."""
    found = [score("instructions", _instructions(built)), score("rules", _rules(built))]
    for length, checked in built.checked.items():
        found.append(score(f"checks, {length} steps", _checks(checked)))
        found.append(score(f"answers, {length} steps", _answers(built.answered[length])))
    if built.opinions:
        found.append(score("opinions", _opinions(built.opinions)))
    chains = (Draft.from_row(row) for row in built.selected.read() if len(row["steps"]) > 1)
    found.append(score("chains that are written", ((True, is_right(draft)) for draft in chains)))
    return found


def _instructions(built: BuildResult) -> Iterator[tuple[bool, bool]]:
    """Yield all tasks; one should pass where its instruction is a phrasing of its operation, word for word."""
    for row in built.tasks.read():
        understood = catalogue.understand(row["instruction"])
        yield True, understood is not None and understood[0].name == row["id"]
    for stage in built.every:
        if stage.name == "instructions":
            yield from ((False, True) for _ in stage.read(REJECTED))


def _rules(built: BuildResult) -> Iterator[tuple[bool, bool]]:
    """Yield all ordered pairs of tasks; one should pass where it is composable on an instance at least."""
    seeds = [Seed.from_row(row) for row in built.tasks.read()]
    judge = rules.PairRules(seeds)
    for first, second in itertools.permutations(seeds, 2):
        if first.split == second.split:
            composable = any(
                is_composable(instance.input, instance.output, _words(second.id)) for instance in first.instances
            )
            yield judge.pair(first, second) == rules.OK, composable


def _checks(stage: Stage) -> Iterator[tuple[bool, bool]]:
    for row in stage.read():
        yield True, _last_follows(Draft.from_row(row))
    for row in stage.read(REJECTED):
        if row["reason"] == NOT_COMPOSABLE:
            yield False, _last_follows(Draft.from_row(row["row"]))


def _last_follows(draft: Draft) -> bool:
    before = draft.length - 1
    return is_composable(draft.input_of(before), draft.input_of(before + 1), _words(draft.steps[-1].task))


def _words(task: str | None) -> str:
    """Return the operation's own words for a task."""
    return catalogue.by_name()[task or ""].phrasings[0]


def _answers(stage: Stage) -> Iterator[tuple[bool, bool]]:
    """Yield the outputs; a rejected one should pass if its right output is no earlier text of the chain."""
    for row in stage.read():
        draft = Draft.from_row(row)
        last = draft.steps[-1]
        yield True, follow([_words(last.task)], draft.input_of(draft.length), [last.output])[0]
    for row in stage.read(REJECTED):
        draft = Draft.from_row(row["row"])
        output = execute(_words(draft.steps[-1].task), draft.input_of(draft.length))
        yield False, output is not None and not draft.repeats_earlier(output)


def _opinions(stage: Stage) -> Iterator[tuple[bool, bool]]:
    for row in stage.read():
        yield True, is_right(Draft.from_row(row))
    for row in stage.read(REJECTED):
        if row["reason"] == POOR:
            yield False, is_right(Draft.from_row(row["row"]))


def is_right(draft: Draft) -> bool:
    """Return whether every step of a chain has the output that is computed; the first one's comes from the seed."""
    instructions = [_words(step.task) for step in draft.steps]
    return all(follow(instructions, draft.input, [step.output for step in draft.steps]))
