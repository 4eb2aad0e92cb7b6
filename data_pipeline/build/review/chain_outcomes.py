"""Lists the outcome of every whole chain of a build: written, sound but not selected, or rejected, and why."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import fsspec

from coi_jax.common import files
from coi_jax.common.errors import UserError
from data_pipeline.build.drafts import Draft
from data_pipeline.build.engine.stage_runner import REJECTED, read_rows
from data_pipeline.build.pipeline import BuildResult

FILE = "chains.jsonl"  # of a work folder
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
    """Write the outcomes into a work folder, in the order of ids."""
    ordered = sorted(outcomes(built), key=lambda outcome: outcome.draft.id)
    lines = (
        json.dumps({"status": one.status, "reason": one.reason, "draft": one.draft.row()}, ensure_ascii=False)
        for one in ordered
    )
    files.write_bytes(f"{work}/{FILE}", "".join(f"{line}\n" for line in lines).encode())


def read(work: str) -> Iterator[Outcome]:
    """Read the outcomes of a work folder.

    Raises:
      UserError: there are none.
    """
    system, path = fsspec.core.url_to_fs(f"{work}/{FILE}")
    if not system.exists(path):
        raise UserError("work", work, f"holds no {FILE}; name the work folder of a finished build")
    for row in read_rows(f"{work}/{FILE}"):
        yield Outcome(Draft.from_row(row["draft"]), row["status"], row["reason"])
