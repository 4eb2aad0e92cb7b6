"""The rows of a run's metrics.jsonl."""

from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.seals import unseal_row
from coi_jax.common.storage import PathLike


def read_metrics(path: PathLike) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, in the order of their steps; a number that was not finite is None.

    Raises:
      UserError: a line is not a row of a step, or was changed since it was written; it names the line.
    """
    rows = []
    for place, sealed in files.read_placed_jsonl(path, "metrics"):
        row = unseal_row(sealed, "metrics", place)
        if type(row.get("step")) is not int:
            raise UserError("metrics", place, "has no step; correct it")
        rows.append(row)
    return rows
