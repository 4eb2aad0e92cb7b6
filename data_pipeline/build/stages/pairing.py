"""Stage 3: which pairs of tasks the rules allow, and which of them are tried on which instances.

All ordered pairs are judged. For each pair of categories the tried pairs of tasks are those with the lowest hash, and
of the first task the tried instances likewise.
"""

import collections
import heapq
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from coi_jax.common import files
from data_pipeline.build import rules
from data_pipeline.build.config import PairsConfig
from data_pipeline.build.drafts import Seed, single
from data_pipeline.build.engine.stage_runner import OUT, Flow

COUNTS = "counts"  # the kind of a row that counts pairs by what the rules say
Ranked = tuple[str, tuple[str, str]]  # a hash, and a pair of tasks


def pair(rows: Flow, config: PairsConfig, seed: int) -> dict[str, Flow]:
    """The flows of the stage: candidates, and one row with the counts."""
    tasks = rows | "tasks" >> beam.Map(Seed.from_row)
    everyone = beam.pvalue.AsSingleton(tasks | "together" >> beam.combiners.ToList())
    judged = tasks | "judge" >> beam.ParDo(_Judge(config, seed), everyone).with_outputs(COUNTS, OUT)
    chosen = judged[OUT] | "lowest hashes" >> beam.combiners.Top.SmallestPerKey(config.tasks_per_categories)
    candidates = (
        chosen
        | "one by one" >> beam.FlatMap(lambda group: [pair for _, pair in group[1]])
        | "candidates" >> beam.FlatMap(_candidates, everyone, config.instances_per_tasks, seed)
    )
    counts = (
        judged[COUNTS]
        | "sum" >> beam.CombinePerKey(sum)
        | "table" >> beam.combiners.ToDict()
        | "as a row" >> beam.Map(lambda counts: {"counts": [[*key, number] for key, number in sorted(counts.items())]})
    )
    return {OUT: candidates, COUNTS: counts}


class _Judge(beam.DoFn):
    """Judges a task with every other one after it."""

    def __init__(self, config: PairsConfig, seed: int) -> None:
        self._config, self._seed = config, seed

    def process(self, first: Seed, everyone: list[Seed]) -> Iterator[Any]:
        """Counts by reason and categories, and the allowed pairs that may be among the lowest of their categories."""
        judge = _judge_of(everyone)
        counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
        allowed: dict[tuple[str, str, str], list[Ranked]] = collections.defaultdict(list)
        for second in everyone:
            reason = judge.pair(first, second)
            categories = (first.category or "", second.category or "")
            counts[reason, *categories] += 1
            if reason == rules.OK and judge.may_start(first.id):
                ranked = (files.digest([self._seed, first.id, second.id]), (first.id, second.id))
                allowed[first.split, *categories].append(ranked)
        for key, number in counts.items():
            yield beam.pvalue.TaggedOutput(COUNTS, (key, number))
        for of, pairs in allowed.items():
            lowest = heapq.nsmallest(self._config.tasks_per_categories, pairs)
            yield from (beam.pvalue.TaggedOutput(OUT, (of, ranked)) for ranked in lowest)


_judges: dict[int, rules.Judge] = {}


def _judge_of(everyone: list[Seed]) -> rules.Judge:
    """The judge over some tasks, made once for a side input."""
    if id(everyone) not in _judges:
        _judges.clear()
        _judges[id(everyone)] = rules.Judge(everyone)
    return _judges[id(everyone)]


def _candidates(pair: tuple[str, str], everyone: list[Seed], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """A pair's candidates, one for each tried instance of its first task."""
    first, second = (_by_id(everyone)[task] for task in pair)
    ranked = sorted(first.instances, key=lambda instance: files.digest([seed, *pair, instance.id]))
    for instance in ranked[:count]:
        yield single(first, instance).followed_by(second).row()


def _by_id(everyone: Iterable[Seed]) -> dict[str, Seed]:
    return {seed.id: seed for seed in everyone}
