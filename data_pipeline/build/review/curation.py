"""The chains of a build in the order in which a person decides on them, and the file of the decisions."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import AppendFile, PathLike, as_path, make_folder
from data_pipeline.build import decisions
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.review.build_report import chain_row
from data_pipeline.build.review.chain_outcomes import Outcome
from data_pipeline.build.review.review_order import doubt, review_order

# Which chains the page shows, by the decision on each and why it is doubtful.
FILTERS: dict[str, Callable[[dict[str, Any] | None, str | None], bool]] = {
    "all": lambda _decision, _doubt: True,
    "undecided": lambda decision, _doubt: decision is None,
    "doubtful": lambda _decision, doubt: doubt is not None,
    "accepted": lambda decision, _doubt: decision is not None and decision["decision"] == decisions.ACCEPT,
    "edited": lambda decision, _doubt: decision is not None and decision["decision"] == decisions.EDIT,
    "rejected": lambda decision, _doubt: decision is not None and decision["decision"] == decisions.REJECT,
}


class CurationSession:
    """Chains in the order in which they are shown, and the file of decisions on them.

    Args:
      found: the chains.
      path: of the decisions.
      by: who decides.
      least_score: that the build asks of second opinions.
      seed: of the order.
    """

    def __init__(self, found: Sequence[Outcome], path: PathLike, by: str, least_score: int, seed: int) -> None:
        self.path, self.by = as_path(path, "--decisions"), by
        self._least_score = least_score
        self._by_id = {one.draft.id: one for one in found}
        drafts = [one.draft for one in found]
        self.order = [draft.id for draft in review_order(drafts, least_score, seed)]
        self._lock = threading.Lock()
        make_folder(self.path.parent, "--decisions")
        files.recover_jsonl(path, "--decisions")
        self._rows = dict(decisions.read(path).rows)
        self._undoable: list[tuple[str, dict[str, Any] | None]] = []  # the chain, and the decision on it before

    def state(self) -> dict[str, Any]:
        """Return how many chains are decided, and how far people and second opinions agree."""
        drafts = (self._by_id[name].draft for name in self._rows if name in self._by_id)
        return {
            "decided": len(self._rows),
            "chains": len(self.order),
            "agreement": decisions.agreement(drafts, Decisions(self._rows)),
        }

    def chain(self, place: int) -> dict[str, Any]:
        """Return the chain at a place of the order, with the decision on it."""
        one = self._by_id[self.order[place]]
        found = {"place": place, "decision": self._rows.get(one.draft.id), "chain": chain_row(one)}
        return found | {"doubt": doubt(one.draft, self._least_score)} | self.state()

    def places(self, show: str, words: str) -> list[int]:
        """Return the places of the chains that a filter leaves, in their order.

        Args:
          show: a key of `FILTERS`.
          words: with spaces between them; all must occur in the chain's id, input, instructions or outputs.
        """
        chosen = ((place, self._by_id[name]) for place, name in enumerate(self.order))
        wanted = words.casefold().split()
        return [
            place
            for place, one in chosen
            if FILTERS[show](self._rows.get(one.draft.id), doubt(one.draft, self._least_score))
            and all(word in _text(one).casefold() for word in wanted)
        ]

    def first_open(self) -> int:
        """Return the first place without a decision; the last place where all have one."""
        places = (place for place, name in enumerate(self.order) if name not in self._rows)
        return next(places, len(self.order) - 1)

    def decide(self, row: Any) -> dict[str, Any]:
        """Append a decision to the file; return the new state.

        Raises:
          UserError: it is not a decision on a chain of the build.
        """
        decisions.check(row, "the page's")
        if row["id"] not in self._by_id:
            raise UserError("id", row["id"], "is no chain of this build")
        steps = row.get("steps")
        if steps is not None and len(steps) != self._by_id[row["id"]].draft.length:
            raise UserError("steps", len(steps), "an edit keeps the number of steps")
        before = self._rows.get(row["id"])
        self._write(row)
        self._undoable.append((row["id"], before))
        return self.state()

    def undo(self) -> dict[str, Any] | None:
        """Take back the newest decision of this session; return its chain, None where there is no decision left."""
        if not self._undoable:
            return None
        name, before = self._undoable[-1]
        self._write(before or {"id": name, "decision": decisions.UNDO})
        self._undoable.pop()
        return self.chain(self.order.index(name))

    def _write(self, row: dict[str, Any]) -> None:
        with self._lock, AppendFile(self.path) as file:
            files.append_jsonl(file, row | {"by": self.by})
            decisions.record(self._rows, row)


def _text(one: Outcome) -> str:
    draft = one.draft
    steps = [f"{step.instruction}\n{step.output}\n{step.category}\n{step.task}" for step in draft.steps]
    return "\n".join([draft.id, draft.input, *steps])
