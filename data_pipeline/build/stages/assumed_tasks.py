"""Stage of a forecast: tasks as they may become, without asking a language model."""

import apache_beam as beam

from coi_jax.common import files
from data_pipeline.build import rules
from data_pipeline.build.engine.stage_runner import Flow, Row


def assume(rows: Flow) -> Flow:
    """Return tasks whose definition stands for an instruction; those without a category are spread over all."""
    return rows | "assume" >> beam.Map(assumed)


def assumed(row: Row) -> Row:
    """Return a task with its definition as instruction and, where it has no category, one that its id draws."""
    categories = list(rules.load().categories)
    drawn = categories[int(files.digest(row["id"])[:8], 16) % len(categories)]
    return row | {"instruction": row["definition"], "category": row["category"] or drawn}
