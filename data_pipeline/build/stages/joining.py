"""Stage 6: join chains with pairs that share a task to candidates with one step more.

A chain that ends with task y and a pair y → z, composable on at least one instance, make a candidate that ends with z.
For each sequence of categories the candidates with the lowest hashes are kept, and of these again the lowest, where
there are more than the config asks for.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms import combiners

from coi_jax.common import files
from data_pipeline.build import rules
from data_pipeline.build.build_config import JoinsConfig
from data_pipeline.build.drafts import Draft, Seed
from data_pipeline.build.engine.stage_runner import OUT, Flow, Row


def join(chains: Flow, pairs: Flow, tasks: Flow, config: JoinsConfig, seed: int) -> dict[str, Flow]:
    """Return the flows of the stage: candidates with one step more than the chains.

    Args:
      chains: complete chains of one length.
      pairs: complete chains of two steps.
      tasks: all tasks.
      config: how many candidates are kept.
      seed: of the choice.
    """
    successors = beam.pvalue.AsMultiMap(
        pairs | "successors" >> beam.Map(_tasks).with_output_types(tuple[str, str]) | beam.Distinct()
    )
    by_id = beam.pvalue.AsDict(tasks | "tasks by id" >> beam.Map(lambda row: (row["id"], row)))
    candidates = (
        chains
        | "join" >> beam.FlatMap(_joined, successors, by_id, seed)
        | "lowest hashes" >> combiners.Top.SmallestPerKey(config.per_categories, key=lambda ranked: ranked[0])
        | "by split" >> beam.FlatMap(lambda group: [(group[0][0], ranked) for ranked in group[1]])
        | "at most" >> combiners.Top.SmallestPerKey(config.most, key=lambda ranked: ranked[0])
        | "one by one" >> beam.FlatMap(lambda group: [row for _, row in group[1]])
    )
    return {OUT: candidates}


def _tasks(pair: Row) -> tuple[str, str]:
    first, second = pair["steps"]
    return first["task"], second["task"]


def _joined(row: Row, successors: Any, by_id: Any, seed: int) -> Iterator[tuple[Any, tuple[str, Row]]]:
    """Yield a chain's candidates by split and categories, each with its hash: one for each category of a next task."""
    draft = Draft.from_row(row)
    last = Seed.from_row(by_id[draft.tasks[-1]])
    if rules.MIDDLE not in rules.Role.of(last).places:
        return
    best: dict[str, tuple[str, Seed]] = {}
    for task in successors[last.id]:
        if task not in draft.tasks:
            follower = Seed.from_row(by_id[task])
            ranked = (files.digest([seed, draft.id, task]), follower)
            known = best.get(follower.category or "")
            if known is None or ranked[0] < known[0]:
                best[follower.category or ""] = ranked
    for rank, follower in best.values():
        candidate = draft.followed_by(follower)
        yield (candidate.split, *candidate.categories), (rank, candidate.row())
