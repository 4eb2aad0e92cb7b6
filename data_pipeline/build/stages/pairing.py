"""Stage 3: select the ordered pairs of tasks that become candidates of two steps, and the instances of each.

Tasks are grouped by split, category and role, because the rules look at nothing else: groups are judged, not tasks.
For each pair of categories the selected pairs of tasks are those with the lowest hash, and of the first task the
selected instances likewise. All allowed pairs are ranked where they are at most `RANKED_PAIRS`. Of larger sources only
a part of each group's tasks is ranked with those of another, so that the time does not grow with the square of the
number of tasks.
"""

import collections
import heapq
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms import combiners

from coi_jax.common import files
from data_pipeline.build import rules
from data_pipeline.build.build_config import PairsConfig
from data_pipeline.build.drafts import Seed, single
from data_pipeline.build.engine.stage_runner import OUT, Flow, Row
from data_pipeline.build.rules import Role

COUNTS = "counts"  # tag of the row that counts pairs by the rules' verdict
RANKED_PAIRS = 1_000_000  # allowed pairs that are ranked; the 1,341 tasks of the paper have fewer
TaskPair = tuple[str, str]  # the ids of two tasks
Categories = tuple[str, str]


class Group(NamedTuple):
    """Tasks that the rules cannot tell apart."""

    split: str
    category: str
    role: Role
    tasks: tuple[str, ...]  # ids, in the order of their hashes


def pair(rows: Flow, config: PairsConfig, seed: int) -> dict[str, Flow]:
    """Return the flows of the stage: candidates of two steps, and one row with the counts.

    Args:
      rows: the tasks.
      config: how many pairs and instances are selected.
      seed: of the selection.
    """
    tasks = rows | "tasks" >> beam.Map(Seed.from_row)
    keyed = tasks | "group" >> beam.Map(_keyed) | beam.GroupByKey()
    groups = keyed | combiners.ToList() | "in order" >> beam.Map(_groups, seed)
    selected = groups | "select" >> beam.FlatMap(select_pairs, config.tasks_per_categories, seed)
    counts = groups | "count" >> beam.Map(_count_row)
    return {OUT: _candidates(selected, tasks, config.instances_per_tasks, seed), COUNTS: counts}


def _keyed(seed: Seed) -> tuple[str, str]:
    role = Role.of(seed)
    key = [seed.split, seed.category or "", sorted(role.takes), role.gives, sorted(role.places)]
    return json.dumps(key), seed.id


def _groups(keyed: Iterable[tuple[str, Iterable[str]]], seed: int) -> list[Group]:
    found = []
    for key, tasks in sorted(keyed):
        split, category, takes, gives, places = json.loads(key)
        ordered = sorted(tasks, key=lambda task: files.digest([seed, task]))
        found.append(Group(split, category, Role(frozenset(takes), gives, frozenset(places)), tuple(ordered)))
    return found


def count_pairs(groups: Sequence[Group]) -> dict[tuple[str, str, str], int]:
    """Return how many ordered pairs of tasks, each with itself included, get each verdict, by their categories."""
    counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for first, second in itertools.product(groups, groups):
        number = len(first.tasks) * len(second.tasks)
        if first is second:
            counts[rules.SAME_TASK, first.category, first.category] += len(first.tasks)
            number -= len(first.tasks)
        if number:
            counts[_judge(first, second), first.category, second.category] += number
    return dict(counts)


def _judge(first: Group, second: Group) -> str:
    return rules.OTHER_SPLIT if first.split != second.split else rules.judge(first.role, second.role)


def _count_row(groups: Sequence[Group]) -> Row:
    return {"counts": [[*key, number] for key, number in sorted(count_pairs(groups).items())]}


def select_pairs(groups: Sequence[Group], per_categories: int, seed: int) -> Iterator[TaskPair]:
    """Yield the selected pairs of tasks: of each split and pair of categories those with the lowest hashes.

    Args:
      groups: all tasks.
      per_categories: how many pairs of each split and pair of categories.
      seed: of the hashes.
    """
    allowed = _allowed(groups)
    total = sum(len(first.tasks) * len(second.tasks) for pairs in allowed.values() for first, second in pairs)
    share = min(1.0, math.sqrt(RANKED_PAIRS / max(total, 1)))
    for pairs in allowed.values():
        ranked = (
            (files.digest([seed, *tasks]), tasks)
            for first, second in pairs
            for tasks in _ranked_tasks(first, second, share, per_categories)
        )
        yield from (tasks for _, tasks in heapq.nsmallest(per_categories, ranked))


def _allowed(groups: Sequence[Group]) -> Mapping[tuple[str, str, str], list[tuple[Group, Group]]]:
    """Return the pairs of groups whose tasks may begin a chain, by split and categories."""
    found: dict[tuple[str, str, str], list[tuple[Group, Group]]] = collections.defaultdict(list)
    for first, second in itertools.product(groups, groups):
        if rules.FIRST in first.role.places and _judge(first, second) == rules.OK:
            found[first.split, first.category, second.category].append((first, second))
    return found


def _ranked_tasks(first: Group, second: Group, share: float, least: int) -> Iterator[TaskPair]:
    """Return the pairs of tasks of two groups that are ranked: all, or those of a share of the tasks of each."""
    parts = (_part(group, share, least, [first.category, second.category]) for group in (first, second))
    return ((one, other) for one, other in itertools.product(*parts) if one != other)


def _part(group: Group, share: float, least: int, of: Sequence[str]) -> Sequence[str]:
    """Return a share of a group's tasks, at least `least`: another part for every pair of categories."""
    number = max(math.ceil(len(group.tasks) * share), least)
    if number >= len(group.tasks):
        return group.tasks
    start = int(files.digest([*of, group.tasks[0]])[:8], 16) % len(group.tasks)
    return (group.tasks[start:] + group.tasks[:start])[:number]


def _candidates(pairs: Flow, tasks: Flow, instances: int, seed: int) -> Flow:
    """Return the candidates of pairs of tasks: each pair is joined with its first task, then with its second."""
    by_id = tasks | "by id" >> beam.Map(lambda seed: (seed.id, seed))
    started = (
        {"tasks": by_id, "pairs": pairs}
        | "with the first" >> beam.CoGroupByKey()
        | "first steps" >> beam.FlatMap(_first_steps, instances, seed)
    )
    return (
        {"tasks": by_id, "drafts": started}
        | "with the second" >> beam.CoGroupByKey()
        | "candidates" >> beam.FlatMap(_second_steps)
    )


def _first_steps(joined: tuple[str, Mapping[str, Iterable[Any]]], instances: int, seed: int) -> Iterator[Any]:
    """Yield chains of the first task alone, for each task that follows it."""
    first, found = joined
    for task in found["tasks"]:
        for second in found["pairs"]:
            ranked = sorted(task.instances, key=lambda one: files.digest([seed, first, second, one.id]))
            yield from ((second, single(task, instance)) for instance in ranked[:instances])


def _second_steps(joined: tuple[str, Mapping[str, Iterable[Any]]]) -> Iterator[Row]:
    for task in joined[1]["tasks"]:
        yield from (draft.followed_by(task).row() for draft in joined[1]["drafts"])
