"""Stage 8: at most so many chains of a sequence of categories, and single instructions as chains of one step."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms import combiners

from coi_jax.common import files
from data_pipeline.build.build_config import SelectionConfig
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.drafts import Draft, Seed, single
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Flow, Row

BY_HAND = "rejected by a person"


def select(rows: list[Flow], tasks: Flow, config: SelectionConfig, seed: int, decisions: Decisions) -> dict[str, Flow]:
    """Return the flows of the stage: the chains that are written.

    Of the chains of a split and a sequence of categories those come first that people accepted or edited, then those
    with the best opinion, among equals those with the lowest hash. What people rejected does not come at all.

    Args:
      rows: whole chains, by length.
      tasks: for single instructions.
      config: how many chains are selected.
      seed: of the choice among equals.
      decisions: of people.
    """
    decided = (
        tuple(rows)
        | "all chains" >> beam.Flatten()
        | "as people left them" >> beam.FlatMap(_decided, decisions).with_outputs(REJECTED, main=OUT)
    )
    chosen = (
        decided[OUT]
        | "rank" >> beam.Map(_ranked, seed, decisions)
        | "best" >> combiners.Top.SmallestPerKey(config.per_categories, key=lambda ranked: ranked[0])
        | "one by one" >> beam.FlatMap(lambda group: [row for _, row in group[1]])
    )
    if config.singles:
        chosen = (chosen, tasks | "singles" >> beam.FlatMap(_singles)) | "with singles" >> beam.Flatten()
    return {OUT: chosen, REJECTED: decided[REJECTED]}


def _decided(row: Row, decisions: Decisions) -> Iterator[Any]:
    left = decisions.applied(Draft.from_row(row))
    if left is None:
        yield beam.pvalue.TaggedOutput(REJECTED, {"reason": BY_HAND, "row": row})
    else:
        yield left.row()


def _ranked(row: Row, seed: int, decisions: Decisions) -> tuple[Any, tuple[Any, Row]]:
    draft = Draft.from_row(row)
    score = draft.opinion.score if draft.opinion else 0
    rank = (decisions.of(draft) is None, -score, files.digest([seed, draft.id]))
    return (draft.split, *draft.categories), (rank, row)


def _singles(row: Row) -> Iterator[Row]:
    seed = Seed.from_row(row)
    yield from (single(seed, instance).row() for instance in seed.instances)
