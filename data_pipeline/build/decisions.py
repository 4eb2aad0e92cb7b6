"""People's decisions on chains: a file that a build applies, and their agreement with the models.

A line of the file is `{"id", "decision": "accept" | "edit" | "reject" | "undo", "by", "steps"}`; `steps` are pairs of
instruction and output, of an edited chain. The last line on a chain counts; "undo" leaves it undecided.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path, is_there
from data_pipeline.build.drafts import Draft

ACCEPT, EDIT, REJECT = DECISIONS = ("accept", "edit", "reject")
UNDO = "undo"


@dataclass(frozen=True)
class Decisions:
    """Decisions by the id of their chain."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Return a hash of all decisions."""
        return files.digest(self.rows)

    def of(self, draft: Draft) -> str | None:
        """Return the decision on a chain, if there is one."""
        row = self.rows.get(draft.id)
        return row["decision"] if row else None

    def applied(self, draft: Draft) -> Draft | None:
        """Return the chain as people left it; None where they rejected it.

        Raises:
          UserError: an edit has another number of steps.
        """
        decision = self.of(draft)
        if decision == REJECT:
            return None
        if decision != EDIT:
            return draft
        texts = self.rows[draft.id]["steps"]
        if len(texts) != draft.length:
            raise UserError("decisions", draft.id, f"its edit has {len(texts)} steps, the chain {draft.length}")
        steps = tuple(
            dataclasses.replace(step, instruction=instruction, output=output)
            for step, (instruction, output) in zip(draft.steps, texts, strict=True)
        )
        return dataclasses.replace(draft, steps=steps)


def read(path: PathLike, *, may_be_absent: bool = True) -> Decisions:
    """Read the decisions of a file; none where there is no file.

    Args:
      path: of the file.
      may_be_absent: whether nothing is decided yet where there is no file.

    Raises:
      UserError: the file is missing, or a line is not a decision; it names the line.
    """
    found: dict[str, dict[str, Any]] = {}
    if not may_be_absent or is_there(as_path(path, "decisions")):
        for place, row in files.read_placed_jsonl(path, "decisions"):
            check(row, place)
            record(found, row)
    return Decisions(found)


def record(rows: dict[str, dict[str, Any]], row: dict[str, Any]) -> None:
    """Add a decision to some rows by id, where it replaces an earlier one; an undone one leaves them."""
    rows.pop(row["id"], None)
    if row["decision"] != UNDO:
        rows[row["id"]] = row


def check(row: Any, where: str) -> None:
    """Check that a row is a decision.

    Raises:
      UserError: it is not; it says `where`, and what is wrong.
    """
    if not isinstance(row, dict) or row.get("decision") not in (*DECISIONS, UNDO) or not isinstance(row.get("id"), str):
        raise UserError("decisions", where, f"has no id, or no decision of {', '.join(DECISIONS)}")
    steps = row.get("steps")
    if (steps is not None) != (row["decision"] == EDIT):
        raise UserError("decisions", where, "steps belong to an edit, and an edit has steps")
    if steps is not None and not all(map(_is_step, steps if isinstance(steps, list) else [None])):
        raise UserError("decisions", where, "steps must be pairs of instruction and output, and no instruction blank")


def _is_step(step: Any) -> bool:
    pair = isinstance(step, list) and len(step) == 2 and all(isinstance(text, str) for text in step)
    return pair and bool(step[0].strip())


def agreement(drafts: Iterable[Draft], decisions: Decisions) -> dict[str, Any]:
    """Compare people's decisions with the second opinions: counts, share of agreement, and Cohen's kappa (1960).

    An edited chain was not right as it was, so it counts as one that the person did not accept.
    """
    pairs = [
        (draft.opinion.valid, decisions.of(draft) == ACCEPT)
        for draft in drafts
        if draft.opinion and decisions.of(draft)
    ]
    table = {
        f"opinion {'valid' if opinion else 'not valid'}, person {'accepts' if person else 'does not'}": pairs.count(
            (opinion, person)
        )
        for opinion in (True, False)
        for person in (True, False)
    }
    counts = {decision: sum(row["decision"] == decision for row in decisions.rows.values()) for decision in DECISIONS}
    return {"decisions": counts, "compared": len(pairs), "table": table} | kappa(pairs)


def kappa(pairs: list[tuple[bool, bool]]) -> dict[str, float | None]:
    """Return the share of equal verdicts, and what of it is beyond chance: (observed - chance) / (1 - chance).

    None where there is nothing to compare, or all verdicts of both are the same.
    """
    if not pairs:
        return {"agreement": None, "kappa": None}
    observed = sum(one == other for one, other in pairs) / len(pairs)
    one, other = (sum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1))
    chance = one * other + (1 - one) * (1 - other)
    return {"agreement": observed, "kappa": (observed - chance) / (1 - chance) if chance < 1 else None}
