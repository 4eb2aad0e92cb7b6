"""Lists the outcome of every whole chain of a build: written, sound but not selected, or rejected, and why.

The file's first row has the number of chains, and each row a checksum: no chain is lost or changed without a word.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.seals import seal_row, unseal_row
from coi_jax.common.storage import as_path, is_there
from coi_jax.common.wording import count_of
from data_pipeline.build.drafts import Draft
from data_pipeline.build.engine.stage_runner import REJECTED
from data_pipeline.build.pipeline import BuildResult

FILE = "chains.jsonl"  # of a work folder
NUMBER = "chains"  # in the first row
MADE_AGAIN = "run the same command of data_pipeline.build again, which writes the file again and asks nothing twice"
WRITTEN, NOT_SELECTED, DISCARDED = "written", "sound, not selected", "rejected"


@dataclass(frozen=True)
class Outcome:
    """A whole chain with its status, and the reason if it was rejected."""

    draft: Draft
    status: str
    reason: str = ""


def outcomes(built: BuildResult) -> Iterator[Outcome]:
    """Yield every chain with an output for each step, once."""
    written = set()
    for row in built.selected.read():
        if len(row["steps"]) > 1:
            draft = Draft.from_row(row)
            written.add(draft.id)
            yield Outcome(draft, WRITTEN)
    judged = [built.opinions] if built.opinions else []
    for stage in judged or built.answered.values():
        for row in stage.read():
            draft = Draft.from_row(row)
            if draft.id not in written:
                yield Outcome(draft, NOT_SELECTED)
    for stage in (*built.answered.values(), *judged):
        for row in stage.read(REJECTED):
            draft = Draft.from_row(row["row"])
            if draft.steps[-1].output is not None:
                yield Outcome(draft, DISCARDED, row["reason"])


def write(work: str, built: BuildResult) -> None:
    """Write the outcomes of a build into a work folder."""
    write_outcomes(work, outcomes(built))


def write_outcomes(work: str, found: Iterable[Outcome]) -> None:
    """Write outcomes into a work folder, in the order of ids."""
    ordered = sorted(found, key=lambda outcome: outcome.draft.id)
    rows: list[dict[str, Any]] = [{NUMBER: len(ordered)}]
    rows += ({"status": one.status, "reason": one.reason, "draft": one.draft.row()} for one in ordered)
    lines = (json.dumps(seal_row(row), ensure_ascii=False) for row in rows)
    files.write_bytes(f"{work}/{FILE}", "".join(f"{line}\n" for line in lines).encode())


def read(work: str) -> Iterator[Outcome]:
    """Read the outcomes of a work folder.

    Raises:
      UserError: there are none, or not those that were written.
    """
    path = as_path(work, "work") / FILE
    if not is_there(path):
        raise UserError("work", work, f"holds no {FILE}; name the work folder of a finished build")
    placed = files.read_placed_jsonl(path, "work")
    rows = (unseal_row(row, "work", place, MADE_AGAIN) for place, row in placed)
    number = next(rows, {}).get(NUMBER)
    if not isinstance(number, int):
        raise UserError("work", path, f"is damaged, or of an earlier version; {MADE_AGAIN}")
    found = 0
    for row in rows:
        yield Outcome(Draft.from_row(row["draft"]), row["status"], row["reason"])
        found += 1
    if found != number:
        raise UserError("work", path, f"has {found:,} of {count_of(number, 'chain')}; {MADE_AGAIN}")
